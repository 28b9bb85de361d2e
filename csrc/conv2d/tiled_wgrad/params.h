// What the tiled weight gradient is told, and how its block divides the work among its threads.
#pragma once

#include <cstdint>

#include "common/fastdiv.h"
#include "common/platform.h"

namespace cnn::conv2d {

constexpr int kTiledWgradThreads = 256;
constexpr int kThreadTile = 8;     // a thread owns 8 filters x 8 columns
constexpr int kMostColumns = 128;  // of a block's tile
constexpr int kMostStagePixels = 128;

// The output pixels with some tap inside the image: rows and columns from first_*, in every image.
struct PixelRectangle {
  int first_p, first_q;
  int pixels;                    // of all images together
  FastDiv<int32_t> width, area;  // of one image's part
};

struct TiledWgradParams {
  const void *x, *y;
  void* w;         // written where there is one slab
  float* partial;  // else [slabs][K][columns]
  int x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w;
  int w_k, w_c, w_r, w_s;
  int N, H, W, P, Q;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int filters, channels, columns;     // of a group; columns = channels * R * S
  bool taps_outermost;                // columns are numbered (r, s, c), else (c, r, s)
  FastDiv<int32_t> inner_columns, S;  // inner_columns: C, or R * S
  int filter_tiles, column_tiles, groups, slabs;
  int log_bm, log_bn, log_bk;  // a tile's filters and columns, and a stage's pixels
  int log_x_unit, log_y_unit;  // elements that are copied at once
  int log_tap_lanes;           // planar: neighbouring lanes that copy neighbouring taps of one pixel
  bool skip_padding;           // each block leaves out the pixels whose taps all lie in the padding; else `whole` is right
  PixelRectangle whole;
};

}  // namespace cnn::conv2d
