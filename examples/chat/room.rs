//! The room: who is in it, and what is said.
//!
//! Everybody hears everything in the same order, because it is put into all outboxes under one lock. Nothing is
//! waited for under that lock, nothing that others wrote runs under it, and no object is dropped under it:
//! whatever drops a session or hears of a lost participant comes here too, on any thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capnp_threads::{Error, Result};

use crate::generated::chat_capnp::participant;
use crate::outbox::{Delivery, Outbox};

/// The longest name and the longest text, in bytes.
const LONGEST_NAME: usize = 64;
const LONGEST_TEXT: usize = 4096;

/// A room.
#[derive(Default)]
pub struct Room(Mutex<State>);

#[derive(Default)]
struct State {
    /// By name.
    members: BTreeMap<String, Member>,
    /// How many have ever entered.
    entered: u64,
}

struct Member {
    seat: u64,
    outbox: Outbox,
}

/// One stay in the room. A name can be taken again by somebody else, a seat can't.
#[derive(Clone)]
pub struct Seat {
    name: String,
    number: u64,
}

impl Room {
    /// Lets somebody in. Fails if the name is taken.
    pub fn enter(&self, name: &str, participant: participant::Client) -> Result<Seat> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(Error::failed(format!("a name has 1 to {LONGEST_NAME} bytes")));
        }
        let outbox = Outbox::new(participant); // made before the guard, so dropped after it if not used
        let mut state = self.lock();
        if state.members.contains_key(name) {
            return Err(Error::failed(format!("somebody in the room is called {name} already")));
        }
        state.entered += 1;
        let number = state.entered;
        state.members.insert(name.to_owned(), Member { seat: number, outbox });
        Ok(Seat { name: name.to_owned(), number })
    }

    /// Passes a text to everybody. Does not wait until it is heard. Who can't hear it has to leave; the speaker
    /// is told if that is the speaker.
    pub fn say(self: &Arc<Self>, seat: &Seat, text: &str) -> Result<()> {
        if text.len() > LONGEST_TEXT {
            return Err(Error::failed(format!("a text has at most {LONGEST_TEXT} bytes")));
        }
        let state = self.lock();
        state.check(seat)?;
        let sent: Vec<(Seat, Option<Delivery>)> =
            state.members.iter().map(|(name, m)| (m.seat_of(name), m.outbox.put(&seat.name, text))).collect();
        drop(state);
        for (to, delivery) in sent {
            match delivery {
                Some(delivery) => {
                    let room = self.clone();
                    delivery.or_else(move || room.leave(&to));
                }
                None => self.leave(&to),
            }
        }
        self.lock().check(seat)
    }

    /// Frees a seat and its name, unless that was done before.
    pub fn leave(&self, seat: &Seat) {
        let mut state = self.lock();
        let member = match state.check(seat) {
            Ok(()) => state.members.remove(&seat.name),
            Err(_) => None,
        };
        drop(state);
        drop(member);
    }

    /// The names of all, for one of them.
    pub fn members(&self, seat: &Seat) -> Result<Vec<String>> {
        let state = self.lock();
        state.check(seat)?;
        Ok(state.names())
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.lock().names()
    }

    /// A method that panicked answers with an exception, and its object lives on: so the room does too.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, seat: &Seat) -> Result<()> {
        match self.members.get(&seat.name) {
            Some(member) if member.seat == seat.number => Ok(()),
            _ => Err(Error::failed(format!("{} has left the room", seat.name))),
        }
    }

    fn names(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }
}

impl Member {
    fn seat_of(&self, name: &str) -> Seat {
        Seat { name: name.to_owned(), number: self.seat }
    }
}
