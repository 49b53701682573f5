"""What an error of a kernel says in a line."""

from __future__ import annotations

from triton.compiler.errors import CompilationError


def reason(error: Exception) -> str:
    """The first line of an error's text; of Triton's compiler, which begins with the place and the source, the
    last one, and of a function that a kernel calls that of its own error."""
    while isinstance(error, CompilationError) and isinstance(error.__cause__, CompilationError):
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if isinstance(error, CompilationError) else lines[0]
