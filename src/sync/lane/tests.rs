//! A lane step by step, on one thread.

use super::*;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::Arc;

/// A lane whose owner is a task, and how many of those were started.
fn on_demand() -> (Lane<u8>, Arc<AtomicUsize>) {
    let (lane, started) = (Lane::new(), Arc::new(AtomicUsize::new(0)));
    let counted = started.clone();
    lane.own_on_demand(move || _ = counted.fetch_add(1, Ordering::Relaxed));
    (lane, started)
}

#[test]
fn one_turn_at_a_time_which_ends_with_the_items() {
    let lane = Lane::new();
    assert!(lane.take_turn().is_none());
    lane.put_all([1, 2].into_iter()).unwrap();
    let mut turn = lane.take_turn().unwrap();
    assert!(lane.take_turn().is_none());
    assert_eq!([turn.next(), turn.next(), turn.next()], [Some(1), Some(2), None]);
    lane.put_all([3].into_iter()).unwrap();
    assert_eq!(turn.next(), None, "it is over");
    let mut turn = lane.take_turn().unwrap();
    assert_eq!(turn.all().unwrap().collect::<Vec<_>>(), [3]);
    assert!(turn.all().is_none());
}

#[test]
fn what_is_left_is_the_own_threads() {
    let lane = Lane::new();
    lane.put_all([1].into_iter()).unwrap();
    let mut turn = lane.take_turn().unwrap();
    assert_eq!(turn.next(), Some(1));
    turn.hand_over();
    assert!(lane.take_turn().is_none(), "there is nothing in the lane");
    let Waited::Turn(mut turn) = lane.wait_turn() else { panic!("something was left") };
    assert_eq!(turn.next(), None);
}

#[test]
fn drains_after_close() {
    let lane = Lane::new();
    lane.put_all([1].into_iter()).unwrap();
    let _ = lane.close();
    assert_eq!(lane.push(2), Err(2));
    assert_eq!(lane.put_all([3].into_iter()).unwrap_err().collect::<Vec<_>>(), [3]);
    let Waited::Turn(mut turn) = lane.wait_turn() else { panic!("something is in it") };
    assert_eq!(turn.all().unwrap().collect::<Vec<_>>(), [1]);
    drop(turn);
    assert!(matches!(lane.wait_turn(), Waited::Closed));
}

#[test]
fn a_task_is_started_where_there_is_something_to_do_and_nobody_at_it() {
    let (lane, started) = on_demand();
    lane.put_all([1].into_iter()).unwrap();
    let mut turn = lane.take_turn().unwrap();
    lane.push(2).unwrap();
    assert_eq!(started.load(Ordering::Relaxed), 0, "a thread has the turn");
    assert_eq!([turn.next(), turn.next(), turn.next()], [Some(1), Some(2), None]);
    assert!(!turn.ends_stage());
    lane.push(3).unwrap();
    lane.push(4).unwrap();
    assert_eq!(started.load(Ordering::Relaxed), 1);
    let Waited::Turn(mut turn) = lane.turn_or_leave() else { panic!("something is in it") };
    assert_eq!([turn.next(), turn.next(), turn.next()], [Some(3), Some(4), None]);
    lane.push(5).unwrap();
    assert_eq!(started.load(Ordering::Relaxed), 1, "the task looks again before it leaves");
    let Waited::Turn(turn) = lane.turn_or_leave() else { panic!("something is in it") };
    drop(turn);
    assert!(matches!(lane.turn_or_leave(), Waited::Turn(_)), "what was not dealt with is still there");
    let Waited::Turn(mut turn) = lane.turn_or_leave() else { panic!() };
    assert_eq!(turn.next(), Some(5));
    drop(turn);
    assert!(matches!(lane.turn_or_leave(), Waited::Left));
    lane.wake();
    assert_eq!(started.load(Ordering::Relaxed), 1, "there is nothing to do");
    lane.push(6).unwrap();
    assert_eq!(started.load(Ordering::Relaxed), 2);
}

#[test]
fn one_thread_ends_the_stage_of_a_closed_lane() {
    // An idle one: whoever closes it.
    let (lane, started) = on_demand();
    assert!(lane.close() && !lane.close() && !lane.end());
    assert_eq!(started.load(Ordering::Relaxed), 0);
    // One that a thread works off: that thread.
    let (lane, started) = on_demand();
    lane.put_all([1].into_iter()).unwrap();
    let mut turn = lane.take_turn().unwrap();
    assert!(!lane.close());
    assert_eq!([turn.next(), turn.next()], [Some(1), None]);
    assert!(turn.ends_stage() && !turn.ends_stage() && !lane.end());
    drop(turn);
    assert_eq!(started.load(Ordering::Relaxed), 0);
    // One with something in it: a task.
    let (lane, started) = on_demand();
    lane.put_all([1].into_iter()).unwrap();
    assert!(!lane.close() && !lane.end());
    assert_eq!(started.load(Ordering::Relaxed), 1);
    let Waited::Turn(mut turn) = lane.turn_or_leave() else { panic!("something is in it") };
    assert_eq!([turn.next(), turn.next()], [Some(1), None]);
    assert!(!turn.ends_stage(), "its owner finds the end");
    drop(turn);
    assert!(matches!(lane.turn_or_leave(), Waited::Closed));
    assert!(!lane.end());
}
