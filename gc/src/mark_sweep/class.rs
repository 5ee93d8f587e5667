//! Size classes: which cell an object of a given size gets.

/// Bytes of a block. Blocks are cut into cells of one class, or make up a large object together.
pub(super) const BLOCK: usize = 16 << 10;
/// Log2 of [`BLOCK`].
pub(super) const BLOCK_SHIFT: u32 = BLOCK.trailing_zeros();

/// Cell sizes in bytes. Each is a multiple of [`GRAIN`]. From 64 to 3264 bytes the step is at most
/// a quarter. At most 7 % of a block are left over at its end.
pub(super) const SIZES: [u32; CLASSES] = [
    8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640,
    768, 896, 1024, 1280, 1536, 1792, 2048, 2304, 2720, 3264, 4096, 5456, 8192,
];

/// Bytes between the sizes of the smallest classes, and what each cell is aligned to: a word, or
/// two where words have 4 bytes.
const GRAIN: usize = 8;
const _: () = assert!(GRAIN.is_multiple_of(size_of::<usize>()));

/// How many size classes there are.
pub(super) const CLASSES: usize = 34;

/// The size of the largest object that lives in a cell, in bytes.
pub(super) const MAX_SMALL: usize = SIZES[CLASSES - 1] as usize;

/// The most cells that a block can have.
pub(super) const MAX_CELLS: usize = BLOCK / SIZES[0] as usize;

/// For each number of grains, the smallest class that holds them.
static CLASS_OF_GRAINS: [u8; MAX_SMALL / GRAIN + 1] = {
    let mut table = [0; MAX_SMALL / GRAIN + 1];
    let mut grains = 0;
    let mut class = 0;
    while grains < table.len() {
        if grains * GRAIN > SIZES[class] as usize {
            class += 1;
        }
        table[grains] = class as u8;
        grains += 1;
    }
    table
};

/// The class of an object of `bytes` bytes, at most [`MAX_SMALL`].
#[inline]
pub(super) fn class_of(bytes: usize) -> usize {
    CLASS_OF_GRAINS[bytes.div_ceil(GRAIN)] as usize
}

/// Cells of a class in one block.
pub(super) fn cells(class: usize) -> usize {
    BLOCK / SIZES[class] as usize
}

/// The factor that divides an offset within a block by a cell size: the quotient is
/// `offset * reciprocal >> 32`.
///
/// It is exact. With `reciprocal = ceil(2^32 / size)` the product is too large by less than
/// `offset`, which is below 2^14. The fraction of `offset / size` is at most `1 - 1 / size`, so an
/// error below `2^32 / size`, which is at least 2^19, does not reach the next integer.
pub(super) fn reciprocal(size: u32) -> u32 {
    (1u64 << 32).div_ceil(u64::from(size)) as u32
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_smallest_cell_that_holds_it() {
        for bytes in 0..=MAX_SMALL {
            let class = class_of(bytes);
            assert!(SIZES[class] as usize >= bytes);
            assert!(class == 0 || (SIZES[class - 1] as usize) < bytes);
        }
    }

    #[test]
    fn division_by_the_reciprocal_is_exact() {
        for size in SIZES {
            for offset in 0..BLOCK as u64 {
                let quotient = (offset * u64::from(reciprocal(size))) >> 32;
                assert_eq!(quotient, offset / u64::from(size));
            }
        }
    }

    #[test]
    fn little_of_a_block_is_wasted() {
        for (class, size) in SIZES.iter().enumerate() {
            assert!((*size as usize).is_multiple_of(GRAIN));
            assert!(BLOCK - cells(class) * *size as usize <= BLOCK * 7 / 100);
        }
        for pair in SIZES.windows(2).filter(|pair| pair[0] >= 64) {
            assert!(pair[1] * 3 <= pair[0] * 5, "{pair:?}");
        }
    }
}
