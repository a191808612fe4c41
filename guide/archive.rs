// The guide's server, and what its programs need of it in scope. Included by the code blocks of the pages.

#[allow(dead_code)]
mod archive_capnp {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/guide/generated/archive_capnp.rs"));
}

#[allow(unused_imports)]
use archive_capnp::{archive, file, follower, subscription};
#[allow(unused_imports)]
use capnp_threads::transport::Transport;
#[allow(unused_imports)]
use capnp_threads::{Capability, Client, Error, Exception, Limits, Promise, Result, Stream, Vat};

/// A store of files in memory.
#[allow(dead_code)]
#[derive(Default)]
struct Memory {
    files: std::sync::Mutex<std::collections::BTreeMap<String, file::Client>>,
}

impl archive::Server for Memory {
    fn open(&self, params: archive::OpenParams, mut results: archive::OpenResults) -> Result<()> {
        let name = params.get()?.get_name()?.to_string()?;
        let mut files = self.files.lock().unwrap();
        let file = files.entry(name).or_insert_with(|| file::Client::new(Text::default()));
        results.get().set_file(file.clone());
        Ok(())
    }

    fn list(&self, _: archive::ListParams, mut results: archive::ListResults) -> Result<()> {
        let files = self.files.lock().unwrap();
        results.get().set_names(&files.keys().map(String::as_str).collect::<Vec<_>>()[..])?;
        Ok(())
    }
}

/// A file in memory.
#[allow(dead_code)]
#[derive(Default)]
struct Text {
    text: std::sync::Mutex<String>,
    followers: std::sync::Arc<std::sync::Mutex<Vec<follower::Client>>>,
}

impl file::Server for Text {
    fn read(&self, _: file::ReadParams, mut results: file::ReadResults) -> Result<()> {
        results.get().set_text(&**self.text.lock().unwrap());
        Ok(())
    }

    fn write(&self, params: file::WriteParams, _: file::WriteResults) -> Result<()> {
        let piece = params.get()?.get_text()?.to_str()?;
        self.text.lock().unwrap().push_str(piece);
        let followers = self.followers.lock().unwrap().clone();
        for follower in followers {
            // Nobody waits for the answer: a follower that has gone is no concern of the writer's.
            follower.wrote(|mut params| params.set_text(piece)).on_ready(drop);
        }
        Ok(())
    }

    fn size(&self, _: file::SizeParams, mut results: file::SizeResults) -> Result<()> {
        results.get().set_bytes(self.text.lock().unwrap().len() as u64);
        Ok(())
    }

    fn follow(&self, params: file::FollowParams, mut results: file::FollowResults) -> Result<()> {
        let follower = params.get()?.get_follower()?;
        self.followers.lock().unwrap().push(follower.clone());
        let ends = Following { followers: self.followers.clone(), follower };
        results.get().set_subscription(subscription::Client::new(ends));
        Ok(())
    }
}

/// What is dropped when nobody holds the subscription any more.
struct Following {
    followers: std::sync::Arc<std::sync::Mutex<Vec<follower::Client>>>,
    follower: follower::Client,
}

impl subscription::Server for Following {}

impl Drop for Following {
    fn drop(&mut self) {
        self.followers.lock().unwrap().retain(|follower| *follower != self.follower);
    }
}

/// A client of an archive that is served in this process, over a connection in memory, which lasts as long as
/// the client.
#[allow(dead_code)]
fn archive() -> Result<archive::Client> {
    let (here, there) = Transport::in_memory();
    let server = Vat::new().bootstrap(archive::Client::new(Memory::default())).over(there)?;
    server.on_disconnect({
        let server = server.clone();
        move |_| drop(server)
    });
    Ok(Vat::new().over(here)?.bootstrap())
}
