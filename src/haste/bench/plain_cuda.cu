// C functions around the templates of github.com/xmc-aalto/ecml23-sparse, which are included from a clone of it.
// TRANSPOSED: features and their gradient are [H, B]. Launches are those of its TensorFlow operators on a GPU.
#include "forward.cu.h"
#include "backward.cu.h"

template <bool TRANSPOSED>
static void forward(const float* x, const int* index, const float* w, float* out, int batch, int width, int labels,
                    int fan_in, cudaStream_t stream) {
  KernelDataHelper<float, int, true, TRANSPOSED> data(x, index, w, out, batch, width, labels, fan_in);
  if constexpr (TRANSPOSED) {
    launch_forward(data, FwdImpTag<ForwardImplementations::GPU_TP_OuterBatchNaive>{}, {16, 24}, stream);
  } else {
    cudaMemsetAsync(out, 0, sizeof(float) * batch * (size_t)labels, stream);
    launch_forward(data, FwdImpTag<ForwardImplementations::GPU_Fast>{}, {512}, stream);
  }
}

template <bool TRANSPOSED>
static BackwardDataHelper<float, int, TRANSPOSED> backward(const float* x, const int* index, const float* w,
                                                           const float* dz, float* dx, float* dw, int batch,
                                                           int width, int labels, int fan_in) {
  return {x, index, w, dz, dx, dw, batch, width, labels, fan_in};
}

#define ARGUMENTS const float *x, const int *index, const float *w, const float *dz, float *dx, float *dw, int batch, \
                  int width, int labels, int fan_in, cudaStream_t stream

extern "C" {
void fixed_forward(const float* x, const int* index, const float* w, float* out, int batch, int width, int labels,
                   int fan_in, int transposed, cudaStream_t stream) {
  auto run = transposed ? forward<true> : forward<false>;
  run(x, index, w, out, batch, width, labels, fan_in, stream);
}

void fixed_dx(ARGUMENTS, int transposed) {
  cudaMemsetAsync(dx, 0, sizeof(float) * batch * (size_t)width, stream);
  if (transposed) {
    auto data = backward<true>(x, index, w, dz, dx, dw, batch, width, labels, fan_in);
    feature_grad_launch_vector_tp(data, {16, 64}, stream);
  } else {
    auto data = backward<false>(x, index, w, dz, dx, dw, batch, width, labels, fan_in);
    feature_grad_launch_vector_weights(data, {8, 128}, stream);
  }
}

void fixed_dw(ARGUMENTS, int transposed) {
  if (transposed) {
    auto data = backward<true>(x, index, w, dz, dx, dw, batch, width, labels, fan_in);
    weight_grad_launch_vector_weights(data, {8, 128}, stream);
  } else {
    auto data = backward<false>(x, index, w, dz, dx, dw, batch, width, labels, fan_in);
    weight_grad_launch_vector_weights(data, {8, 128}, stream);
  }
}
}
