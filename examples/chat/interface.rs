//! The methods of `schema/chat.capnp`: their numbers, for servers, and as functions, for callers.

use capnp::traits::HasTypeId;
use capnp_threads::{Client, RemotePromise, Request, Response, Result};

use crate::generated::chat_capnp::{chat_room, participant, session};

/// An interface, and an ordinal in it: how a method is named on the wire.
pub type Method = (u64, u16);

pub const JOIN: Method = (chat_room::Client::TYPE_ID, 0);
pub const RECEIVE: Method = (participant::Client::TYPE_ID, 0);
pub const SAY: Method = (session::Client::TYPE_ID, 0);
pub const LEAVE: Method = (session::Client::TYPE_ID, 1);
pub const MEMBERS: Method = (session::Client::TYPE_ID, 2);

pub fn begin(target: &Client, (interface, ordinal): Method) -> Request {
    target.request(interface, ordinal)
}

/// `ChatRoom.join`. Waits for the answer, since the name may be taken. What is said in the room from now on is
/// passed to `participant`.
pub fn join(room: &Client, name: &str, participant: Client) -> Result<Session> {
    let mut request = begin(room, JOIN);
    let mut params: chat_room::join_params::Builder = request.init();
    params.set_name(name);
    params.set_participant(participant.into_typed());
    let response = request.send().wait()?;
    let session = response.get_as::<chat_room::join_results::Reader>()?.get_session()?;
    Ok(Session(Client::from_typed(session)?))
}

/// `Participant.receive`. Does not wait until it has been heard.
pub fn receive(participant: &Client, from: &str, text: &str) -> RemotePromise {
    let mut request = begin(participant, RECEIVE);
    let mut params: participant::receive_params::Builder = request.init();
    params.set_from(from);
    params.set_text(text);
    request.send()
}

/// A seat in a room, as its owner sees it: a typed face of a [`Client`].
///
/// Dropping it drops the last reference to an object in the server; that is told, and taken for leaving.
pub struct Session(Client);

impl Session {
    /// Passes a text to all participants, this one included.
    pub fn say(&self, text: &str) -> Result<()> {
        let mut request = begin(&self.0, SAY);
        request.init::<session::say_params::Builder>().set_text(text);
        done(request.send().wait())
    }

    /// Leaves the room.
    pub fn leave(&self) -> Result<()> {
        done(begin(&self.0, LEAVE).send().wait())
    }

    /// Who is in the room, sorted.
    pub fn members(&self) -> Result<Vec<String>> {
        let response = begin(&self.0, MEMBERS).send().wait()?;
        let names = response.get_as::<session::members_results::Reader>()?.get_names()?;
        names.iter().map(|name| Ok(name?.to_string()?)).collect()
    }
}

/// Methods without results answer all the same: with an empty struct, or why they failed.
fn done(answer: Result<Response>) -> Result<()> {
    answer.map(drop)
}
