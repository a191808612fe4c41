//! Every order of the threads' steps: nothing is left lying, and nobody sleeps on.

use super::*;
use crate::sync::{check_all, spawn, Arc, Role};

type Log = Arc<Mutex<Vec<u8>>>;

fn beside(run: impl FnOnce() + Send + 'static) -> crate::sync::JoinHandle<()> {
    spawn("beside", Role::User, run).unwrap()
}

fn log() -> Log {
    Arc::new(Mutex::new(Rank::Promise, Vec::new()))
}

fn own_thread(lane: &Lane<u8>, log: &Log) {
    while let Waited::Turn(mut turn) = lane.wait_turn() {
        while let Some(item) = turn.next() {
            log.lock().push(item);
        }
    }
}

#[test]
fn loom_a_borrower_and_the_own_thread_deal_with_all() {
    check_all(|| {
        let (lane, log) = (Arc::new(Lane::new()), log());
        let (lanes, logs) = (lane.clone(), log.clone());
        let borrower = beside(move || {
            if lanes.put_all([1, 2].into_iter()).is_err() {
                return;
            }
            if let Some(mut turn) = lanes.take_turn() {
                while let Some(item) = turn.next() {
                    logs.lock().push(item);
                }
            }
        });
        let lanes = lane.clone();
        let pusher = beside(move || {
            lanes.push(3).unwrap();
            let _ = lanes.close();
        });
        own_thread(&lane, &log);
        pusher.join().unwrap();
        borrower.join().unwrap();
        // What came too late for the closed lane was refused.
        let log = log.lock().clone();
        assert!([vec![3], vec![1, 2, 3], vec![3, 1, 2]].contains(&log), "{log:?}");
    });
}

/// Tasks are started as they are needed, while another thread works the lane off, and the lane is closed.
#[test]
fn loom_tasks_deal_with_all_and_one_thread_ends_the_stage() {
    check_all(|| {
        let (lane, log) = (Arc::new(Lane::new()), log());
        let ends = Arc::new(crate::sync::atomic::AtomicUsize::new(0));
        let end = {
            let ends = ends.clone();
            move || _ = ends.fetch_add(1, crate::sync::atomic::Ordering::SeqCst)
        };
        let tasks = Arc::new(Mutex::new(Rank::Promise, Vec::new()));
        {
            let (started, log, end) = (tasks.clone(), log.clone(), end.clone());
            let owned = Arc::downgrade(&lane);
            lane.own_on_demand(move || {
                let Some(lane) = owned.upgrade() else { return };
                let (log, end) = (log.clone(), end.clone());
                let task = beside(move || loop {
                    match lane.turn_or_leave() {
                        Waited::Turn(mut turn) => {
                            while let Some(item) = turn.next() {
                                log.lock().push(item);
                            }
                            assert!(!turn.ends_stage(), "its owner finds the end");
                        }
                        Waited::Left => return,
                        Waited::Closed => return end(),
                    }
                });
                started.lock().push(task);
            });
        }
        let (lanes, logs, ended) = (lane.clone(), log.clone(), end.clone());
        let borrower = beside(move || {
            if lanes.put_all([1].into_iter()).is_err() {
                return;
            }
            if let Some(mut turn) = lanes.take_turn() {
                while let Some(item) = turn.next() {
                    logs.lock().push(item);
                }
                if turn.ends_stage() {
                    ended();
                }
            }
        });
        let pushed = lane.push(2).is_ok();
        if lane.close() {
            end();
        }
        borrower.join().unwrap();
        loop {
            let task = tasks.lock().pop();
            match task {
                Some(task) => task.join().unwrap(),
                None => break,
            }
        }
        assert!(pushed && ends.load(crate::sync::atomic::Ordering::SeqCst) == 1);
        let log = log.lock().clone();
        assert!([vec![2], vec![1, 2], vec![2, 1]].contains(&log), "{log:?}");
    });
}

#[test]
fn loom_what_is_handed_over_is_taken_up() {
    check_all(|| {
        let (lane, log) = (Arc::new(Lane::new()), log());
        let lanes = lane.clone();
        let borrower = beside(move || {
            lanes.put_all([1].into_iter()).unwrap();
            if let Some(mut turn) = lanes.take_turn() {
                assert_eq!(turn.next(), Some(1));
                turn.hand_over();
            }
        });
        let Waited::Turn(turn) = lane.wait_turn() else { panic!("it is not closed") };
        drop(turn);
        borrower.join().unwrap();
        drop(log);
    });
}
