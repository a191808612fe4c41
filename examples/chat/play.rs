//! A scripted evening in the room: each person on a thread and a connection of her own.
//!
//! Nobody directs them. Who has the next line says it when the line before it has been heard, so the evening
//! goes the same way each time, although all of them are free to speak at any time.

use std::net::SocketAddr;
use std::sync::mpsc::{channel, Receiver};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use capnp_threads::{Capability, Error, Result, Vat};

use crate::generated::chat_capnp::participant;
use crate::visitor::{join, members, Ear};

const PEOPLE: [&str; 4] = ["Ada", "Barbara", "Edsger", "Grace"];

const SCRIPT: &[(&str, &str)] = &[
    ("Grace", "Is this thing on?"),
    ("Ada", "I hear you."),
    ("Edsger", "So do I, and in the same order, I trust."),
    ("Barbara", "How would you know?"),
    ("Edsger", "We compare notes afterwards."),
    ("Grace", "A nanosecond is this long."),
    ("Ada", "We can't see your hands, Grace."),
    ("Grace", "Then good night, all."),
];

/// So long may a line take to come before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays it in the room at `address`, and prints what each of them has heard.
pub fn perform(address: SocketAddr) -> Result<()> {
    let all_in = &Barrier::new(PEOPLE.len());
    let transcripts: Vec<Result<Vec<String>>> = thread::scope(|scope| {
        let spawn = |name| scope.spawn(move || attend(address, name, all_in));
        let threads: Vec<_> = PEOPLE.into_iter().map(spawn).collect();
        let join = |t: thread::ScopedJoinHandle<_>| {
            t.join().unwrap_or_else(|_| Err(Error::failed("a participant's thread panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    for (name, transcript) in PEOPLE.iter().zip(transcripts) {
        println!("{name} has heard:");
        for line in transcript? {
            println!("    {line}");
        }
    }
    Ok(())
}

/// One person's evening. Returns what she has heard.
fn attend(address: SocketAddr, name: &str, all_in: &Barrier) -> Result<Vec<String>> {
    let connection = Vat::new().connect(address)?;
    let (ear, heard) = channel();
    let ear = Ear(move |from: &str, text: &str| {
        // It fails once this thread no longer listens.
        let _ = ear.send(format!("{from}: {text}"));
    });
    let session = join(&connection.bootstrap(), name, participant::Client::new(ear));
    // Even if that failed: the others must not wait here for ever.
    all_in.wait();
    let session = session?;
    if members(&session)? != PEOPLE {
        return Err(Error::failed("not everybody has come"));
    }

    let mut transcript = Vec::new();
    for (speaker, line) in SCRIPT {
        if *speaker == name {
            session.say(|mut params| params.set_text(line)).wait()?;
        }
        transcript.push(next(&heard)?);
    }

    session.leave().wait()?;
    match session.say(|mut params| params.set_text("One more thing!")).wait() {
        Ok(_) => Err(Error::failed("the room has listened to someone who is not there")),
        Err(_) => Ok(transcript),
    }
}

fn next(heard: &Receiver<String>) -> Result<String> {
    heard.recv_timeout(PATIENCE).map_err(|_| Error::failed("nobody says anything"))
}
