//! The objects through which others reach a room: its door, and a session for each who came in.

use std::sync::Arc;

use capnp_threads::{Call, Client, Result, Server};

use crate::generated::chat_capnp::{chat_room, session};
use crate::interface::{JOIN, LEAVE, MEMBERS, SAY};
use crate::room::{Room, Seat};

/// What is offered to whoever connects: a `ChatRoom`.
pub struct Door(pub Arc<Room>);

impl Server for Door {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        match (call.interface_id(), call.method_id()) {
            JOIN => self.join(call),
            _ => call.unimplemented(),
        }
    }
}

impl Door {
    fn join(&self, call: &mut Call) -> Result<()> {
        let params: chat_room::join_params::Reader = call.params_as()?;
        let participant = Client::from_typed(params.get_participant()?)?;
        let seat = self.0.enter(params.get_name()?.to_str()?, participant)?;
        let session = Client::new(Session { room: self.0.clone(), seat });
        call.init_results::<chat_room::join_results::Builder>().set_session(session.into_typed());
        Ok(())
    }
}

/// A participant's seat. It lives as long as somebody holds a client of it: when the participant drops it, or
/// loses the connection, it goes, and with it the seat.
struct Session {
    room: Arc<Room>,
    seat: Seat,
}

impl Server for Session {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        match (call.interface_id(), call.method_id()) {
            SAY => {
                let text = call.params_as::<session::say_params::Reader>()?.get_text()?;
                self.room.say(&self.seat, text.to_str()?)
            }
            LEAVE => {
                self.room.leave(&self.seat);
                Ok(())
            }
            MEMBERS => {
                let names = self.room.members(&self.seat)?;
                let results: session::members_results::Builder = call.init_results();
                let mut list = results.init_names(names.len() as u32);
                for (i, name) in names.iter().enumerate() {
                    list.set(i as u32, name);
                }
                Ok(())
            }
            _ => call.unimplemented(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.room.leave(&self.seat);
    }
}
