use super::*;

const MAX: usize = 1 << 30;

#[test]
fn a_piece_at_the_top_of_the_address_space_ends_with_its_range() {
    let end = usize::MAX & !4095;
    assert_eq!(first_piece(end - 4096..end), end - 4096..end);
    assert_eq!(first_piece(end - 3 * PIECE..end), end - 3 * PIECE..end - 2 * PIECE);
    assert!(first_piece(end..end - 4096).is_empty());
}

#[test]
fn stacks_of_a_span_do_not_overlap_and_come_back() {
    let pool = StackPool::new(MAX);
    let mut taken: Vec<StackMemory> =
        (0..600).map(|i| pool.take(MIN_STACK << (i % ORDERS)).expect("memory")).collect();
    let mut ranges: Vec<_> = taken.iter().map(|m| (m.lo, m.hi)).collect();
    ranges.sort();
    assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0));
    let resident = pool.resident_bytes();
    taken.drain(..).for_each(|m| pool.give(m));
    assert_eq!(pool.resident_bytes(), resident, "pooled memory is still resident");
    let again = pool.take(MIN_STACK).expect("memory");
    assert_eq!(pool.resident_bytes(), resident, "pooled memory is used again");
    pool.give(again);
    pool.trim();
    assert_eq!(pool.resident_bytes(), 0);
    assert_eq!(pool.resident_peak_bytes(), resident);
    let fresh = pool.take(MIN_STACK).expect("memory");
    pool.give(fresh);
}

#[test]
fn a_reserved_stack_grows_and_shrinks_in_place_and_gives_its_pages_back() {
    let pool = StackPool::new(MAX);
    let mut m = pool.reserve(512 << 10).expect("a range");
    let hi = m.hi;
    pool.resize(&mut m, 64 << 20).expect("room");
    assert_eq!((m.hi, m.size()), (hi, 64 << 20));
    // SAFETY: the whole stack in use is writable memory of ours.
    unsafe { ptr::write_bytes(m.lo as *mut u8, 0xaa, m.size()) };
    pool.resize(&mut m, 1 << 20).expect("room");
    assert_eq!(pool.resident_bytes(), 64 << 20, "a stack that shrinks keeps its pages");
    // Half of what it has grown by again is used, and stays as it is.
    pool.resize(&mut m, 32 << 20).expect("room");
    let mut pieces = 1;
    while pool.give_piece_back(&mut m) {
        pieces += 1;
    }
    assert_eq!(pieces, (32 << 20) / PIECE, "they are given back in pieces");
    assert_eq!(pool.resident_bytes(), 32 << 20);
    // SAFETY: as above.
    assert_eq!(unsafe { *(m.lo as *const u8) }, 0xaa, "pages in use stay");
    pool.resize(&mut m, 1 << 20).expect("room");
    while pool.give_piece_back(&mut m) {}
    assert_eq!(pool.resident_bytes(), 1 << 20);
    assert!(!pool.give_piece_back(&mut m), "there are no more");
    pool.resize(&mut m, 64 << 20).expect("room");
    // SAFETY: as above.
    assert_eq!(unsafe { *(m.lo as *const u64) }, 0, "the pages were given back");
    assert_eq!(pool.resize(&mut m, MAX + 1), Err(StackError::Overflow { limit: MAX }));
    pool.give(m);
    assert_eq!(pool.resident_bytes(), 0);
}
