"""The program `overlaymig`: one file for each command."""
