//! The other side: an ear to give to a room, and a person at a keyboard.

use std::io::{stdin, BufRead};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use capnp_threads::{Capability, Error, Result, Vat};

use crate::generated::chat_capnp::{chat_room, participant, session};

/// A participant that passes what is said, and by whom, to a function. Its calls come one at a time and in
/// order; until the function has returned, the next one waits.
pub struct Ear<F>(pub F);

impl<F: Fn(&str, &str) + Send + Sync + 'static> participant::Server for Ear<F> {
    fn receive(&self, params: participant::ReceiveParams, _: participant::ReceiveResults) -> Result<()> {
        let params = params.get()?;
        (self.0)(params.get_from()?.to_str()?, params.get_text()?.to_str()?);
        Ok(())
    }
}

/// Takes a seat in a room, which is held until the session is dropped. Waits for it, since the name may be taken.
pub fn join(room: &chat_room::Client, name: &str, ear: participant::Client) -> Result<session::Client> {
    let answer = room.join(|mut params| {
        params.set_name(name);
        params.set_participant(ear);
    });
    Ok(answer.wait()?.get()?.get_session()?)
}

/// Who is in the room, sorted.
pub fn members(session: &session::Client) -> Result<Vec<String>> {
    let response = session.members().wait()?;
    response.get()?.get_names()?.iter().map(|name| Ok(name?.to_string()?)).collect()
}

/// How many of our own texts have come back, for the thread that waits until they all have.
#[derive(Default)]
struct Echoes {
    heard: Mutex<usize>,
    changed: Condvar,
}

impl Echoes {
    fn add(&self) {
        *self.heard.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    fn wait_for(&self, said: usize) {
        let heard = self.heard.lock().unwrap();
        drop(self.changed.wait_while(heard, |heard| *heard < said).unwrap());
    }
}

/// Enters the room at `address`, says each line of stdin, prints what is said, and leaves at the end of input.
pub fn visit(address: &str, name: &str) -> Result<()> {
    let connection = Vat::new().connect(address)?;
    let leaving = Arc::new(AtomicBool::new(false));
    let wanted = leaving.clone();
    // This thread will wait for the keyboard: somebody else must notice that the server is gone.
    connection.on_disconnect(move |why| {
        if !wanted.load(Ordering::Acquire) {
            eprintln!("chat: {why}");
            process::exit(1);
        }
    });
    let outcome = stay(&connection.bootstrap(), name);
    leaving.store(true, Ordering::Release);
    outcome
}

fn stay(room: &chat_room::Client, name: &str) -> Result<()> {
    let echoes = Arc::new(Echoes::default());
    let (own_name, own) = (name.to_owned(), echoes.clone());
    let ear = Ear(move |from: &str, text: &str| {
        println!("{from}: {text}");
        if from == own_name {
            own.add();
        }
    });
    let session = join(room, name, participant::Client::new(ear))?;
    println!("In the room: {}", members(&session)?.join(", "));

    let mut said = 0;
    for line in stdin().lock().lines() {
        let line = line.map_err(|e| Error::failed(format!("stdin: {e}")))?;
        session.say(|mut params| params.set_text(&line)).wait()?;
        said += 1;
    }
    echoes.wait_for(said);
    session.leave().wait()?;
    Ok(())
}
