//! The harness: a raw peer, its account, and an object of ours that writes down its calls.

mod account;
mod content;
pub mod control;
pub mod message;
pub mod peer;
pub mod recorder;

pub use control::{freeze_callbacks, Gate};
pub use message::{Call, Cap, Context, Msg, Outcome, Payload, Return, Target, INTERFACE};
pub use peer::Peer;
pub use recorder::{request, send, wait, wait_failed, Held, Recorder, AHEAD, GIVE, HOLD, NOTE};
