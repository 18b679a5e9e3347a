"""What another package adds to edgegen, each part by one file and one entry point."""
