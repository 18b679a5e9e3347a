"""The manual's table of quantization is the matrix with the bench's figures, and the bench knows the matrix."""

import quantization_table


def test_the_manual_has_the_table_of_the_matrix() -> None:
    found = quantization_table.in_manual()
    assert found
    assert found[1].strip() == quantization_table.table(), "run: python tests/quantization_table.py"
