"""Names inside the folder of a stage that more than one part reads or writes."""

CHECKPOINT = "checkpoint.safetensors"  # of a training stage under way
GENERATOR = "generator"  # the sub-folder that is a generator folder
