"""Backends: each lowers one captured program to one kind of file and opens that file again on this machine."""
