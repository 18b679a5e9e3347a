"""Programs that run on the device that is measured, each one file without edgegen."""
