//! Callers that wait for room before their transaction.

use super::flow::Sending;
use super::line::{Granted, Ticket, Waited};
use crate::cap::request::deadline_passed;
use crate::conn::shared::Shared;
use crate::error::Exception;
use crate::promise::{cancel, enter_blocking, enter_wait};
use crate::state::{Effects, State};
use crate::sync::{assert_unlocked, deadline, Instant};

impl Shared {
    /// Runs a transaction that sends so many bytes once there is room for them and for another question, waiting for that
    /// until `until`, or for as long as any caller is to. The body is not run if there is none by then.
    pub(in crate::conn) fn transact_with_room<R>(
        &self,
        bytes: usize,
        until: Option<Instant>,
        body: impl FnOnce(&mut State, &mut Effects) -> R,
    ) -> Result<R, Exception> {
        let mut body = Some(body);
        let mut run = |state: &mut State, fx: &mut Effects| body.take().map(|body| body(state, fx));
        let done = self.transact(|state, fx| {
            let has_room = !self.room.has_others() && self.has_room(state, Granted::default());
            has_room.then(|| run(state, fx)).flatten()
        })?;
        if let Some(done) = done {
            return Ok(done);
        }
        assert_unlocked();
        let _in_wait = enter_wait()?;
        let _asleep = enter_blocking()?;
        let ticket = self.wait_for_room(bytes, until)?;
        let done = self.transact(|state, fx| {
            self.room.taken(&ticket);
            run(state, fx)
        })?;
        Ok(done.expect("the body was not run before"))
    }

    /// Waits in line for a place, which the caller is to take. See Note [Room for callers].
    fn wait_for_room(&self, bytes: usize, until: Option<Instant>) -> Result<Ticket, Exception> {
        let state = self.state.lock();
        self.grant(&state);
        let ticket = self.room.enter(bytes, |granted| self.has_room(&state, granted));
        self.grant(&state);
        let outstanding = state.outstanding();
        drop(state);
        let Some(ticket) = ticket else { return Err(self.no_room(outstanding)) };
        let _watch = cancel::current().map(|current| {
            let (this, ticket) = (self.this.clone(), ticket.clone());
            current.watch_while(move || {
                if let Some(this) = this.upgrade() {
                    this.room.cancel(&ticket);
                }
            })
        });
        let _waiting = self.wait();
        // No caller waits longer than any call may take.
        let (room_timeout, call_timeout) = (self.limits.room_timeout, self.call_timeout);
        let longest = room_timeout.into_iter().chain(call_timeout).min();
        let last = until.into_iter().chain(longest.map(deadline)).min();
        match self.room.wait(&ticket, last) {
            Waited::Granted => Ok(ticket),
            Waited::Canceled => Err(cancel::canceled()),
            Waited::Late if until == last => Err(deadline_passed()),
            Waited::Late => {
                self.room.waited_in_vain(&ticket);
                match longest == room_timeout {
                    true => Err(self.no_room(self.state.lock().outstanding())),
                    false => Err(deadline_passed()),
                }
            }
        }
    }

    fn no_room(&self, outstanding: usize) -> Exception {
        let unsent = self.flow.sending().bytes;
        Exception::timed_out(format!(
            "no room for a call in {:?}: the peer has left {outstanding} calls unanswered, and {unsent} bytes unread",
            self.limits.room_timeout.unwrap_or_default(),
        ))
    }

    /// Whether there is room for another question, and to send, beside what has been granted.
    fn has_room(&self, state: &State, granted: Granted) -> bool {
        state.ended().is_some()
            || (state.outstanding() + granted.calls < self.limits.questions
                && self.flow.may_send_beside(granted.bytes))
    }

    /// Grants places to callers in line, if there is room.
    pub(in crate::conn) fn grant(&self, state: &State) {
        if self.room.is_in_use() {
            // Before the look: whoever has sent something after it is to look, too.
            self.flow.watch_for_callers();
            let is_half_free = state.ended().is_some()
                || (state.outstanding() <= self.limits.questions / 2
                    && self.flow.may_send_beside(self.limits.send_bytes / 2));
            self.room.grant(is_half_free, |granted| self.has_room(state, granted));
        }
    }

    /// Messages have been sent: callers that wait for room are granted places, and calls that were held start.
    pub(in crate::conn) fn sent(&self, sent: Sending) {
        let freed = self.flow.sent(sent);
        if freed.callers {
            self.grant(&self.state.lock());
        }
        if freed.callees {
            self.permits.unpark_held();
        }
    }
}
