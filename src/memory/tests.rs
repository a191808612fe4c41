//! Tests of `memory`. They share the process's counters with each other, and with the tests of connections.

use super::*;

#[test]
fn what_is_held_counts_until_it_is_dropped() {
    let before = process_memory().held;
    let mut arriving = Arriving::default();
    assert!(arriving.grows_to(QUANTUM - 1), "less than a quantum");
    assert_eq!(arriving.0, 0);
    assert!(arriving.grows_to(8 << 20));
    assert!(process_memory().held >= 8 << 20, "{before} before");
    drop(arriving);
}

#[test]
fn a_small_user_always_has_room_and_a_large_one_a_part_of_what_is_free() {
    assert!(has_room(ALWAYS));
    let limit = process_memory().limit;
    assert!(!has_room(limit / PARTS as usize + 1), "even if nobody else holds anything");
    assert!(!Arriving::default().grows_to(limit));
}

#[test]
fn the_free_room_bounds_the_sum_of_any_number_of_users() {
    let limit = 256.0;
    for users in [1, 2, 20, 1000] {
        // Where each holds as much as it may.
        let each = limit / (users + PARTS) as f64;
        let threshold = (limit - users as f64 * each) / PARTS as f64;
        assert!((threshold - each).abs() < 1e-9);
        assert!(users as f64 * each < limit);
    }
}
