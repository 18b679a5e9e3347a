"""The stages that make nets: data, teacher, pairs, slim, distill and the baseline."""
