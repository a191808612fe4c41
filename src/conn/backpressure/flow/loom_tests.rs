//! Every order of the steps of those who make room, and who wait for it.

use super::*;
use crate::cap::permits::{Admission, CallCount, Parked, Permits, Ticket, Unparked};
use crate::sync::{check_all, check_most, spawn, Role};

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

/// An object with one call: for a pool that counts calls, or one that does not.
struct Object {
    permits: Arc<Permits>,
    pool: Option<Arc<CallCount>>,
    parked: Mutex<Option<Ticket>>,
    outcomes: AtomicUsize,
}

impl Object {
    fn new(permits: &Arc<Permits>, pool: Option<&Arc<CallCount>>) -> Arc<Self> {
        Arc::new(Object {
            permits: permits.clone(),
            pool: pool.cloned(),
            parked: Mutex::new(Rank::Mailbox, None),
            outcomes: AtomicUsize::new(0),
        })
    }

    /// The call comes, or may go on if it was parked with this ticket.
    fn go_on(self: &Arc<Self>, ticket: Option<Ticket>) -> Unparked {
        let mut parked = self.parked.lock();
        if *parked != ticket {
            return Unparked::Passes;
        }
        let admission = self.permits.admit(self.pool.as_ref(), &mut None, || self.clone());
        let (now, outcome) = match &admission {
            Admission::Now(_) => (None, Unparked::Runs),
            Admission::Waits(ticket) => (Some(*ticket), Unparked::ParkedAgain),
            Admission::Held(ticket) => (Some(*ticket), Unparked::Passes),
            Admission::Refused(_) => (None, Unparked::Passes),
        };
        *parked = now;
        drop(parked);
        self.outcomes.fetch_add(usize::from(now.is_none()), Ordering::SeqCst);
        drop(admission);
        outcome
    }

    fn is_done(&self) {
        assert_eq!((self.outcomes.load(Ordering::SeqCst), *self.parked.lock()), (1, None));
    }
}

impl Parked for Object {
    fn unpark(self: Arc<Self>, ticket: Ticket) -> Unparked {
        self.go_on(Some(ticket))
    }

    fn refuse_parked(&self, _: Ticket, _: &Exception) {
        unreachable!("the connection does not end");
    }
}

fn send(flow: &Flow, permits: &Permits) {
    if flow.sent(ONE_BYTE).callees {
        permits.unpark_held();
    }
}

/// A call comes while what fills the output is sent, more is queued, and that is sent, too.
#[test]
fn loom_a_call_that_is_held_starts_when_the_peer_has_read() {
    check_most(|| {
        let flow = flow();
        let permits = Permits::new(1, flow.clone());
        flow.tell(flow.committed(ONE_BYTE, 0, 0));
        let call = Object::new(&permits, None);
        let comes = call.clone();
        let coming = spawn("call", Role::User, move || _ = comes.go_on(None)).unwrap();
        let answers = flow.clone();
        let answering =
            spawn("answers", Role::User, move || answers.tell(answers.committed(ONE_BYTE, 0, 0))).unwrap();
        send(&flow, &permits);
        answering.join().unwrap();
        send(&flow, &permits);
        coming.join().unwrap();
        call.is_done();
    });
}

/// A method has answered more than its peer reads, and gives its permit back. Two calls wait for that; the first is
/// held by then, and needs none.
#[test]
fn loom_a_permit_that_a_held_call_does_not_take_goes_to_the_next() {
    check_most(|| {
        let flow = flow();
        let permits = Permits::new(1, flow.clone());
        let pool = CallCount::new(8);
        let permit = permits.try_admit(Some(&pool), &mut None).flatten().expect("none is in use");
        let calls = [Object::new(&permits, Some(&pool)), Object::new(&permits, Some(&pool))];
        calls.iter().for_each(|call| assert_eq!(call.go_on(None), Unparked::ParkedAgain));
        flow.tell(flow.committed(ONE_BYTE, 0, 0));
        let returns = spawn("method", Role::User, move || drop(permit)).unwrap();
        send(&flow, &permits);
        returns.join().unwrap();
        calls.iter().for_each(|call| call.is_done());
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
