"""What an error of a kernel says in a line."""

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler.errors import CompilationError

from haste.bench.reason import reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried 30 GiB"), "CUDA out of memory."),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_the_first_line(error, said):
    assert reason(error) == said


# compiled, also where kernels run in the interpreter
@triton.runtime.jit.JITFunction
def stores(x_ptr):
    tl.store(x_ptr, tl.arange(0, 3))


@triton.runtime.jit.JITFunction
def calls(x_ptr):
    stores(x_ptr)


@pytest.mark.parametrize("kernel", [stores, calls])
def test_of_the_compiler_what_is_wrong_and_not_where(kernel):
    source = triton.compiler.ASTSource(kernel, {"x_ptr": "*i32"}, constexprs={})
    with pytest.raises(CompilationError) as caught:
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert "power of 2" in reason(caught.value)
    assert reason(caught.value) != str(caught.value).splitlines()[0]
