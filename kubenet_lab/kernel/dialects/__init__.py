"""Text in, text out: kernel state as the real tools print and read it, one file a tool."""
