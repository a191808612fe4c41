//! Compares the layout of our schemas with the peers': IDs, offsets, types, defaults and discriminants.
//!
//! The texts of our schemas are our own, so a slip of the pen would not show as a difference of text. What
//! must agree is stored as tables of facts in `tests/data`, one line for each struct, field, enum and
//! enumerant, and the same table is made here from the schemas that the generated code carries with it.
//!
//! The tables were made by this program from the peers' schemas. To make them again, put those into a folder
//! as `rpc-2017.capnp`, `rpc-v2.capnp` and so on, and run
//! `SCHEMA_SEEDS=folder SCHEMA_WRITE=1 cargo test --test schema`. Without `SCHEMA_WRITE` they are compared.

#[path = "schema/facts.rs"]
mod facts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use capnp::any_pointer;
use capnp::introspect::Introspect;
use capnp_threads::generated::{persistent_capnp, rpc_capnp, rpc_twoparty_capnp};

use facts::Facts;

/// How `rpc.capnp` differs from that of 2017: each line of either table that the other has not, or has with
/// other facts, and why. All but the last group are compatible on the wire.
const SINCE_2017: &[(&str, &str)] = &[
    ("Call.noPromisePipelining", "new: a hint that nothing is pipelined on the call"),
    ("Call.onlyPromisePipeline", "new: a hint that only pipelined calls matter"),
    ("Return.noFinishNeeded", "new: saves the Finish where results hold no capabilities"),
    ("Finish.requireEarlyCancellationWorkaround", "new: how peers of before differ in cancelling"),
    ("CapDescriptor.attachedFd", "new: file descriptors that travel with a capability"),
    ("Exception", "two pointers more, for the next two"),
    ("Exception.trace", "new: a stack trace"),
    ("Exception.details", "new: facts for programs"),
    ("Exception.Detail", "new: a fact"),
    ("Exception.Detail.detailId", "new: a fact's kind"),
    ("Exception.Detail.data", "new: a fact's value"),
    // Level 3, which no peer of 2017 implemented, was designed anew.
    ("Message", "level 3: one variant more"),
    ("Message.thirdPartyAnswer", "level 3: new message"),
    ("ThirdPartyAnswer", "level 3: new message"),
    ("ThirdPartyAnswer.completion", "level 3: new message"),
    ("ThirdPartyAnswer.answerId", "level 3: new message"),
    ("Return.acceptFromThirdParty", "level 3: renamed"),
    ("Return.awaitFromThirdParty", "level 3: renamed"),
    ("Accept", "level 3: the embargo is named by a string"),
    ("Accept.embargo", "level 3: the embargo is named by a string"),
    ("Disembargo", "level 3: the embargo is named by a string"),
    ("Disembargo.context", "level 3: the embargo is named by a string"),
    ("Disembargo.context.accept", "level 3: the embargo is named by a string"),
    ("Disembargo.context.provide", "level 3: `accept` does its work"),
];

fn rpc() -> Facts {
    Facts::of_types([rpc_capnp::message::Owned::introspect()])
}

fn twoparty() -> Facts {
    use rpc_twoparty_capnp::*;
    Facts::of_types([
        vat_id::Owned::introspect(),
        third_party_completion::Owned::introspect(),
        third_party_to_await::Owned::introspect(),
        third_party_to_contact::Owned::introspect(),
        join_key_part::Owned::introspect(),
        join_result::Owned::introspect(),
    ])
}

fn persistent() -> Facts {
    use persistent_capnp::persistent::*;
    Facts::of_types([
        save_params::Owned::<any_pointer::Owned, any_pointer::Owned>::introspect(),
        save_results::Owned::<any_pointer::Owned, any_pointer::Owned>::introspect(),
    ])
}

#[test]
fn rpc_is_that_of_2017_but_for_what_is_listed() {
    let (ours, theirs) = (rpc().lines(), stored("rpc-2017").lines());
    let listed: BTreeSet<&str> = SINCE_2017.iter().map(|(name, _)| *name).collect();
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let (ours, theirs) = (ours.get(name), theirs.get(name));
        if listed.contains(name.as_str()) {
            assert_ne!(ours, theirs, "{name} is listed as a difference, yet is the same");
        } else {
            assert_eq!(ours, theirs, "{name}: ours, theirs");
        }
    }
    for name in listed {
        assert!(ours.contains_key(name) || theirs.contains_key(name), "{name} is listed, yet is nowhere");
    }
}

#[test]
fn rpc_is_that_of_version_2() {
    assert_same("rpc.capnp", &rpc(), &stored("rpc-v2"));
}

#[test]
fn twoparty_is_that_of_version_2() {
    assert_same("rpc-twoparty.capnp", &twoparty(), &stored("rpc-twoparty-v2"));
}

#[test]
fn persistent_is_that_of_version_2() {
    assert_same("persistent.capnp", &persistent(), &stored("persistent-v2"));
    // The IDs of the interface and of the annotation, which no message holds a type for.
    let id = <persistent_capnp::persistent::Client<any_pointer::Owned, any_pointer::Owned> as capnp::traits::HasTypeId>::TYPE_ID;
    assert_eq!(id, 0xc8cb_212f_cd9f_5691);
    assert_eq!(persistent_capnp::persistent_annotation::ID, 0xf622_5950_91ca_fb67);
}

#[test]
fn tables_are_what_the_seeds_say() {
    for table in ["rpc-2017", "rpc-v2", "rpc-twoparty-v2", "persistent-v2"] {
        let Some(seed) = seed(table) else {
            println!("skipped: no schema to make {table}.layout from");
            continue;
        };
        let Ok(request) = Command::new("capnp").args(["compile", "-o-"]).arg(&seed).output() else {
            println!("skipped {table}: the capnp tool is not installed");
            continue;
        };
        assert!(request.status.success(), "{}", String::from_utf8_lossy(&request.stderr));
        let facts = Facts::of_request(&request.stdout);
        if env::var_os("SCHEMA_WRITE").is_some() {
            fs::write(path(table), facts.to_string()).unwrap();
        }
        assert_same(table, &stored(table), &facts);
    }
}

fn assert_same(what: &str, ours: &Facts, theirs: &Facts) {
    let (ours, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) = (ours.lines(), theirs.lines());
    for name in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(name), theirs.get(name), "{name} of {what}: ours, theirs");
    }
}

fn path(table: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{table}.layout"))
}

fn stored(table: &str) -> Facts {
    Facts::parse(&fs::read_to_string(path(table)).unwrap())
}

/// The schema of the peers' that a table was made from, if it is at hand.
fn seed(table: &str) -> Option<PathBuf> {
    let file = match env::var_os("SCHEMA_SEEDS") {
        Some(folder) => Path::new(&folder).join(format!("{table}.capnp")),
        None if table == "rpc-2017" => {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/seeds/rpc.capnp")
        }
        None => return None,
    };
    file.exists().then_some(file)
}
