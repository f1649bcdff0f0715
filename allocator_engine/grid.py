"""Pixels, cells and vision tokens of a model family. Integers only.

A *cell* is the square of pixels that becomes one vision token after the encoder merges its patches: patch 14 and
merge 2 make 28 px (Qwen2.5-VL), patch 16 and merge 2 make 32 px (Qwen3-VL, Qwen3.5).
"""

from dataclasses import dataclass

MAX_ASPECT = 200
"""Longest side over shortest side that the Qwen processors accept."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixel-to-token arithmetic of one model family.

    `min_pixels` and `max_pixels` bound a picture's area in px; a processor enlarges what is smaller and shrinks what is
    larger. `min_pixels` is one cell here, because small pictures are what the Allocator is for.
    """

    family: str
    patch_px: int
    merge: int
    max_pixels: int
    min_pixels: int
    temporal_patch: int = 2

    @property
    def cell_px(self) -> int:
        """Side of a cell in pixels."""
        return self.patch_px * self.merge

    def tokens(self, height: int, width: int) -> int:
        """Vision tokens of a picture of `height` x `width` px, which must lie on the grid."""
        rows, row_rest = divmod(height, self.cell_px)
        columns, column_rest = divmod(width, self.cell_px)
        if row_rest or column_rest or not rows or not columns:
            raise ValueError(f"{height}x{width} px is not on the {self.family} grid of {self.cell_px} px cells")
        return rows * columns

    def native(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in px on the grid at which the model would see a picture of this size: scale 1.0.

        Equal to `smart_resize` of the Qwen processors (transformers), for any size: sides round half to even to whole
        cells, an area above `max_pixels` is floored, one below `min_pixels` is raised. Raises ValueError for an empty
        picture and for an aspect above 200.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a picture of {height}x{width} px has no area; expected at least 1x1")
        if max(height, width) > MAX_ASPECT * min(height, width):
            raise ValueError(f"{height}x{width} px is longer than {MAX_ASPECT}:1, which {self.family} refuses")
        cell = self.cell_px
        rows = round_half_even(height, cell)  # 0 for a sliver, which the minimum area below then enlarges
        columns = round_half_even(width, cell)
        if rows * columns * cell * cell > self.max_pixels:
            rows, columns = self._within_max(height, width)
        elif rows * columns * cell * cell < self.min_pixels:
            rows, columns = self._above_min(height, width)
        return rows * cell, columns * cell

    def _within_max(self, height: int, width: int) -> tuple[int, int]:
        # The processors divide by sqrt(h*w/max) in float64 and floor; the same float is what makes the result equal.
        shrink = ((height * width) / self.max_pixels) ** 0.5
        cell = self.cell_px
        return max(1, int(height / shrink // cell)), max(1, int(width / shrink // cell))

    def _above_min(self, height: int, width: int) -> tuple[int, int]:
        enlarge = (self.min_pixels / (height * width)) ** 0.5
        cell = self.cell_px
        return -int(-(height * enlarge) // cell), -int(-(width * enlarge) // cell)


def round_half_even(value: int, unit: int) -> int:
    """`round(value / unit)` with ties to even, in integers."""
    whole, rest = divmod(value, unit)
    if 2 * rest > unit or (2 * rest == unit and whole % 2):
        return whole + 1
    return whole


GRIDS: dict[str, Grid] = {
    "qwen2_5_vl": Grid("qwen2_5_vl", patch_px=14, merge=2, min_pixels=28 * 28, max_pixels=12_845_056),
    "qwen3_vl": Grid("qwen3_vl", patch_px=16, merge=2, min_pixels=32 * 32, max_pixels=16_777_216),
    "qwen3_5": Grid("qwen3_5", patch_px=16, merge=2, min_pixels=32 * 32, max_pixels=16_777_216),
}
"""Grids by `model_type` of the checkpoint; bounds are those of the published processors, the minimum one cell."""
