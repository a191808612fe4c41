//! Every order of the steps of those who make room, and who wait for it.

use super::*;
use crate::cap::permits::{Admission, Parked, Permits, Ticket, Unparked};
use crate::sync::{check_all, spawn, Role};

fn flow() -> Arc<Flow> {
    Flow::new(&Limits { call_words: 1, send_bytes: 0, ..Limits::default() })
}

const ONE_BYTE: Sending = Sending { calls: 1, bytes: 1, held: 1 };

fn on_its_own_thread(run: impl FnOnce() + Send + 'static) {
    spawn("changes", Role::User, run).unwrap();
}

#[test]
fn loom_the_receive_thread_hears_of_room() {
    check_all(|| {
        let flow = flow();
        let share = flow.serve(1, 0);
        flow.tell(flow.committed(ONE_BYTE, 0, 0));
        let sender = flow.clone();
        on_its_own_thread(move || drop(share));
        on_its_own_thread(move || {
            sender.sent(ONE_BYTE);
        });
        flow.wait_for_room(Needs::Service, None, None);
        assert!(flow.may_read());
    });
}

/// What the receive thread waits at for the end of its input, which does not come.
struct Endless(Mutex<bool>, Condvar);

impl EndWatch for Endless {
    fn has_ended(&self) -> bool {
        false
    }

    fn wait_end(&self, _deadline: Option<Instant>) {
        let mut woken = self.0.lock();
        while !*woken {
            self.1.wait(&mut woken);
        }
        *woken = false;
    }

    fn wake(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }
}

#[test]
fn loom_the_receive_thread_hears_of_room_where_it_waits_for_the_end() {
    check_all(|| {
        let flow = flow();
        let share = flow.serve(1, 0);
        let watch: Arc<dyn EndWatch> = Arc::new(Endless(Mutex::new(Rank::Queue, false), Condvar::new()));
        on_its_own_thread(move || drop(share));
        assert_eq!(flow.wait_for_room(Needs::Service, Some(&watch), None), Found::Room);
    });
}

#[test]
fn loom_the_receive_thread_hears_that_something_is_awaited() {
    check_all(|| {
        let flow = flow();
        let _share = flow.serve(1, 0);
        let caller = flow.clone();
        on_its_own_thread(move || caller.tell(caller.committed(Sending::default(), 1, 0)));
        flow.wait_for_room(Needs::Service, None, None);
    });
}

#[test]
fn loom_the_receive_thread_hears_that_its_calls_have_left_the_crowd() {
    check_all(|| {
        let flow = flow();
        let crowd = Arc::default();
        let calls = [flow.in_crowd(&crowd), flow.in_crowd(&crowd)];
        calls.into_iter().for_each(|call| on_its_own_thread(move || drop(call)));
        // Time stands still: it ends because it is told.
        flow.wait_for_crowd();
    });
}

#[test]
fn loom_the_receive_thread_hears_of_the_end() {
    check_all(|| {
        let flow = flow();
        let _share = flow.serve(1, 0);
        let ends = flow.clone();
        on_its_own_thread(move || ends.close());
        flow.wait_for_room(Needs::Service, None, None);
    });
}

/// An object whose next call is held, or has started.
struct Held(Arc<Permits>, Mutex<Option<Ticket>>);

impl Held {
    fn go_on(self: &Arc<Self>) {
        let mut parked = self.1.lock();
        *parked = match self.0.admit(None, &mut None, || self.clone()) {
            Admission::Waits(ticket) => Some(ticket),
            Admission::Now(_) | Admission::Refused(_) => None,
        };
    }
}

impl Parked for Held {
    fn unpark(self: Arc<Self>, _: Ticket) -> Unparked {
        self.go_on();
        Unparked::Passes
    }

    fn refuse_parked(&self, _: Ticket, _: &Exception) {
        *self.1.lock() = None;
    }
}

/// A call comes while what fills the output is sent, more is queued, and that is sent, too.
#[test]
fn loom_a_call_that_is_held_starts_when_the_peer_has_read() {
    check_all(|| {
        let flow = flow();
        let permits = Permits::new(1, flow.clone());
        flow.tell(flow.committed(ONE_BYTE, 0, 0));
        let call = Arc::new(Held(permits.clone(), Mutex::new(Rank::Mailbox, None)));
        let comes = call.clone();
        let coming = spawn("call", Role::User, move || comes.go_on()).unwrap();
        let answers = flow.clone();
        let answering = spawn("answers", Role::User, move || answers.tell(answers.committed(ONE_BYTE, 0, 0)));
        let send = || {
            if flow.sent(ONE_BYTE).callees {
                permits.unpark_held();
            }
        };
        send();
        answering.unwrap().join().unwrap();
        send();
        coming.join().unwrap();
        assert_eq!(*call.1.lock(), None, "all has been sent");
    });
}

#[test]
fn loom_callers_are_told_when_they_may_send() {
    check_all(|| {
        let flow = flow();
        flow.tell(flow.committed(ONE_BYTE, 0, 0));
        let (sender, told) = (flow.clone(), Arc::new(AtomicBool::new(false)));
        let tells = told.clone();
        let sends = spawn("sends", Role::User, move || {
            if sender.sent(ONE_BYTE).callers {
                tells.store(true, Ordering::Release);
            }
        });
        flow.watch_for_callers();
        let may_send = flow.may_send();
        sends.unwrap().join().unwrap();
        assert!(may_send || told.load(Ordering::Acquire));
    });
}
