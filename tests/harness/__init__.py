"""Starts engines, talks to them and looks at what they leave behind. Standard library only: bench/ uses it, too."""
