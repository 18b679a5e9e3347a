"""What the stages do: each function takes a Context and writes its result into `context.folder`."""
