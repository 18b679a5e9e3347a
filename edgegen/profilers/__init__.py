"""Measuring exported files on devices: `files.profile.profile_files` is the entry point."""
