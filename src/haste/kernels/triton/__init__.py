"""The kernels in Triton; `haste.kernels.api` calls them."""
