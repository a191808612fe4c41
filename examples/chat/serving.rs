//! The objects through which others reach a room: its door, and a session for each who came in.

use std::sync::Arc;

use capnp_threads::{Capability, Result};

use crate::generated::chat_capnp::{chat_room, session};
use crate::room::{Room, Seat};

/// What is offered to whoever connects.
pub struct Door(pub Arc<Room>);

impl chat_room::Server for Door {
    fn join(&self, params: chat_room::JoinParams, mut results: chat_room::JoinResults) -> Result<()> {
        let params = params.get()?;
        let seat = self.0.enter(params.get_name()?.to_str()?, params.get_participant()?)?;
        let session = Session { room: self.0.clone(), seat };
        results.get().set_session(session::Client::new(session));
        Ok(())
    }
}

/// A participant's seat. It lives as long as somebody holds a client of it: when the participant drops it, or
/// loses the connection, it goes, and with it the seat.
struct Session {
    room: Arc<Room>,
    seat: Seat,
}

impl session::Server for Session {
    fn say(&self, params: session::SayParams, _: session::SayResults) -> Result<()> {
        self.room.say(&self.seat, params.get()?.get_text()?.to_str()?)
    }

    fn leave(&self, _: session::LeaveParams, _: session::LeaveResults) -> Result<()> {
        self.room.leave(&self.seat);
        Ok(())
    }

    fn members(&self, _: session::MembersParams, mut results: session::MembersResults) -> Result<()> {
        let names = self.room.members(&self.seat)?;
        Ok(results.get().set_names(names.as_slice())?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.room.leave(&self.seat);
    }
}
