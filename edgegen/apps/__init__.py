"""What app developers get; `templates/` holds the files that go into their projects."""
