//! Snapshots as JSON, read back with a parser of others'. (A program of its own: with `serde_json`, the compiler can't infer
//! types in some comparisons of the other tests.)

use std::time::{Duration, Instant};

use capnp_threads::snapshot::{AnswerEntry, Destination, OnAnswer, Snapshot};
use capnp_threads::testing::record;
use capnp_threads::transport::Transport;
use capnp_threads::{Call, Capability, Client, Connection, Deferred, Exception, Result, Server, Vat};
use crossbeam_channel::{unbounded, Sender};
use serde_json::{json, Value};

const INTERFACE: u64 = 0x00d7_751b_b3fa_53db;
const REASON: &str = "a \"quoted\" \\ line\nand \u{1} more, é\u{7f}";
const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps its calls, and the capabilities in their params.
struct Holder(Sender<(Deferred, Vec<Client>)>);

impl Server for Holder {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let (_, caps) = record::read(call.params().get()?)?;
        self.0.send((call.defer()?, caps)).expect("the test waits for it");
        Ok(())
    }
}

fn read(connection: &Connection) -> (Snapshot, Value) {
    let snapshot = connection.snapshot();
    let json = serde_json::from_str(&snapshot.to_json()).expect("well-formed JSON");
    (snapshot, json)
}

/// What an entry is, without its age.
fn without_age(entry: &Value) -> Value {
    let mut entry = entry.clone();
    assert!(entry.as_object_mut().and_then(|entry| entry.remove("age_ms")).is_some_and(|age| age.is_u64()));
    entry
}

#[test]
fn json_of_a_connection_with_calls_under_way_says_what_the_entries_say() {
    let (here, there) = Transport::in_memory();
    let (to, held) = unbounded();
    let serving = Vat::new().bootstrap(Client::new(Holder(to.clone()))).over(there).unwrap();
    let calling = Vat::new().over(here).unwrap();
    let client: Client = calling.bootstrap();
    client.resolve().unwrap();
    let mut request = client.request(INTERFACE, 5);
    let (promise, fulfiller) = Client::promise();
    record::write(request.get(), 1, &[Client::new(Holder(to)), promise]);
    let call = request.send();
    let held = held.recv_timeout(DEADLINE).expect("a call");
    let result = call.pipeline.field(3).field(1).client();
    let ahead = result.request(INTERFACE, 6).send();
    let becomes = |connection: &Connection, wanted: fn(&Snapshot) -> bool| {
        assert!(connection.wait_until(Instant::now() + DEADLINE, wanted), "{}", connection.snapshot());
    };
    becomes(&serving, |tables| tables.answers() == 2 && tables.imports() == 2);
    becomes(&calling, |tables| tables.questions() == 2 && tables.promises() == 1);

    let (tables, json) = read(&calling);
    assert_eq!((&json["version"], &json["ended"]), (&json!(1), &Value::Null));
    assert_eq!(json["connection"].to_string(), calling.id().to_string());
    assert!(json["taken_ms"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000));
    let [first, second] = [0, 1].map(|n| tables.question_entries().nth(n).expect("two").id.0);
    let [object, promised] = [0, 1].map(|n| tables.export_entries().nth(n).expect("two"));
    let promise = tables.promise_entries().next().expect("one").id;
    let interface = "0x00d7751bb3fa53db";
    let question = |id: u32, method: u16, exports: Value, promises: Value| {
        json!({
            "id": id,
            "method": { "interface_id": interface, "method_id": method },
            "state": "NewQA",
            "outcome": null,
            "on_return": [{ "kind": "RespondHere" }],
            "is_tail_call": false,
            "takes_from": null,
            "param_exports": exports,
            "promises": promises,
        })
    };
    let questions = json["questions"].as_array().expect("a list");
    assert_eq!(
        without_age(&questions[0]),
        question(first, 5, json!([object.id.0, promised.id.0]), json!([promise]))
    );
    assert_eq!(without_age(&questions[1]), question(second, 6, json!([]), json!([])));
    let export = |id: u32, is_promise: bool, destination: Value| {
        let told = Value::Null;
        json!({ "id": id, "references": 1, "destination": destination, "is_promise": is_promise, "told": told })
    };
    let Destination::Object { address } = object.destination else { panic!("{tables}") };
    let destination = json!({ "kind": "Object", "address": address });
    assert_eq!(without_age(&json["exports"][0]), export(object.id.0, false, destination));
    let Destination::Promise { address, .. } = promised.destination else { panic!("{tables}") };
    let destination = json!({ "kind": "Promise", "address": address, "waiting_calls": 0 });
    assert_eq!(without_age(&json["exports"][1]), export(promised.id.0, true, destination));
    let place = json!({ "kind": "Results", "question": first, "path": [3, 1] });
    let expected = json!({ "id": promise, "place": place, "is_called": true, "watchers": 0 });
    assert_eq!(without_age(&json["promises"][0]), expected);
    assert_eq!((&json["answers"], &json["embargoes"]), (&json!([]), &json!([])));

    let (tables, json) = read(&serving);
    let entries: Vec<&AnswerEntry> = tables.answer_entries().collect();
    let OnAnswer::Deliver { answer: waits, .. } = entries[0].on_return[0].action else { panic!("{tables}") };
    assert_eq!((waits, entries[1].waits_for), (entries[1].id, Some(entries[0].id)));
    let answer = |id: u32, method: u16, on_return: Value, waits_for: Value| {
        json!({
            "id": id,
            "method": { "interface_id": interface, "method_id": method },
            "state": "NewQA",
            "outcome": null,
            "on_return": on_return,
            "on_finish": [],
            "waits_for": waits_for,
            "names": [],
            "handed_on": null,
            "has_pipeline": false,
            "keeps_results": false,
            "pipeline_only": false,
            "bytes": 0,
        })
    };
    let action = json!({ "kind": "Deliver", "answer": waits.0, "path": [3, 1] });
    let on_return = json!([{ "action": action, "wants": true }]);
    let answers = json["answers"].as_array().expect("a list");
    assert_eq!(without_age(&answers[0]), answer(entries[0].id.0, 5, on_return, Value::Null));
    assert_eq!(without_age(&answers[1]), answer(waits.0, 6, json!([]), json!(entries[0].id.0)));
    let (promise, settled) = (tables.promise_entries().next().expect("one").id, json!({ "kind": "Settled" }));
    let expected = json!({ "id": object.id.0, "references": 1, "promise": settled });
    assert_eq!(without_age(&json["imports"][0]), expected);
    let pending = json!({ "kind": "Pending", "promise": promise });
    let expected = json!({ "id": promised.id.0, "references": 1, "promise": pending });
    assert_eq!(without_age(&json["imports"][1]), expected);

    calling.abort(Exception::failed(REASON));
    let (tables, json) = read(&calling);
    assert!(tables.is_empty() && json["ended"].as_str() == tables.ended(), "{json}");
    assert!(
        tables.ended().is_some_and(|why| why.contains(REASON)),
        "what the reason holds is escaped: {json}"
    );
    let empty = ["questions", "answers", "exports", "imports", "promises", "embargoes"];
    assert!(empty.iter().all(|table| json[table] == json!([])), "{json}");
    drop((held, call, result, ahead, client, fulfiller));
}
