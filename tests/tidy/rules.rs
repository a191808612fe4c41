//! Rules and their tests: `tests/conformance/RULES.md` is made from the line `/// Rules: …` above each test.

use std::env;
use std::fmt::Write;
use std::fs;

use crate::{report, root, sources, File};

/// The list of rules and their tests. It is generated: `TIDY_WRITE=1` has it written.
const LIST: &str = "tests/conformance/RULES.md";
const COMMAND: &str = "TIDY_WRITE=1 cargo test --test tidy";
/// The tests that must say which rules they belong to. Other tests may.
const MUST_SAY: &str = "tests/conformance/";

/// The ID of a rule, its name, and what it says.
type Rule = (&'static str, &'static str, &'static str);

/// The rules of the protocol that implementations got wrong.
const RULES: &[Rule] = &[
    (
        "1",
        "Embargo",
        "A promise that was called and resolves to something hosted here needs a Disembargo round before new calls \
         go direct. The embargo belongs to the reference: all clones share it. A null or broken capability is never \
         embargoed.",
    ),
    (
        "2",
        "Tribble",
        "Once a promise P was resolved on the wire (by Resolve or Return) to R, everything that still arrives for P \
         goes to R for ever, even if R is a promise that resolves on.",
    ),
    (
        "3",
        "Disembargo",
        "`senderLoopback` is echoed only after all calls received before it were forwarded. Its target must lead \
         back to the sender.",
    ),
    (
        "4",
        "Tail calls",
        "`sendResultsTo.yourself`, `resultsSentElsewhere` and `takeFromOtherQuestion` work in both roles, with \
         cancellation in each order.",
    ),
    (
        "5",
        "Release of capabilities in params and results",
        "`releaseParamCaps` and `releaseResultCaps` release exactly the exports of that message, after a \
         cancellation and after a message that could not be sent, too.",
    ),
    (
        "6",
        "Release counts",
        "An import counts every time it was received. Its Release sends exactly that count.",
    ),
    (
        "7",
        "Resolve",
        "A Resolve for a promise that was released releases what it brings. Circles are broken with an exception. \
         `senderPromise` never names an export that was resolved.",
    ),
    (
        "8",
        "Unimplemented",
        "`unimplemented` for a Resolve releases what it resolved to, and for a Call it fails that question. Only \
         nonsense ends the connection.",
    ),
    (
        "9",
        "IDs",
        "The ID of a question is free once its Return came and its Finish was sent. Embargo IDs have a pool of \
         their own.",
    ),
    (
        "10",
        "Finish before Return",
        "A Finish before the Return cancels the call, unless its result is still needed. A name of the result that \
         nothing can use is no need.",
    ),
    (
        "11",
        "Late and duplicate messages",
        "A late Finish is ignored after `noFinishNeeded`. Duplicate and unknown IDs end the connection with a \
         reason. A message that is refused is refused as a whole.",
    ),
    (
        "12",
        "Order",
        "Calls made on one reference arrive in the order made: through promises, pipelines, embargoes, proxies and \
         streams.",
    ),
    (
        "13",
        "Abort and disconnect",
        "The end of a connection ends every wait, in every state, with the first cause as source.",
    ),
    (
        "14",
        "Third parties",
        "A capability of a third party is used through its vine. What level 1 does not have comes back as \
         `unimplemented`.",
    ),
];

/// The errors of the Haskell implementation that are not carried over.
const ERRORS: &[Rule] = &[
    ("H1", "Embargo IDs", "Taken from the pool of questions, and given back to that of exports."),
    ("H2", "Finish of a Bootstrap or Call", "Releases by the wrong descriptors."),
    ("H3", "Resolve for an unknown promise", "Releases only `receiverHosted`."),
    ("H4", "Unimplemented", "Any `unimplemented` but two ends the connection."),
    ("H5", "`sendResultsTo`", "Ignored."),
    ("H6", "Finish", "Never cancels."),
    ("H7", "Promise imports", "Do not count local references; `origTarget` leaks."),
    ("H8", "Callbacks", "One is lost when the callback thread is stopped."),
    (
        "H9",
        "Limits",
        "A large call, or a full send queue, stops the coordinator; embargoes use up the IDs of questions.",
    ),
    ("H10", "Objects", "One whose thread dies leaves its queue unanswered."),
    ("H11", "Closing", "Throws without an exported bootstrap object, and fails no question."),
];

/// A test, and the rules that the line above it names: none if that line says so.
struct Test {
    file: String,
    name: String,
    rules: Vec<String>,
}

#[test]
fn each_rule_has_a_test_and_each_conformance_test_names_its_rules() {
    let mut bad = Vec::new();
    let tests: Vec<Test> = sources("tests").iter().flat_map(|file| read(file, &mut bad)).collect();
    for (id, name, _) in RULES.iter().chain(ERRORS) {
        if !tests.iter().any(|test| test.rules.iter().any(|rule| rule == id)) {
            bad.push(format!("rule {id} ({name}) has no test: write `/// Rules: {id}.` above one"));
        }
    }
    let list = list(&tests);
    if env::var_os("TIDY_WRITE").is_some() {
        fs::write(root().join(LIST), &list).expect("the list of rules can be written");
    }
    if File::read(LIST).is_none_or(|file| file.text != list) {
        bad.push(format!("{LIST} is not what the tests say: run `{COMMAND}`"));
    }
    report(bad);
}

/// The tests of a file that say which rules they belong to, in the order of the file.
fn read(file: &File, bad: &mut Vec<String>) -> Vec<Test> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let mut tests = Vec::new();
    let mut lines_of_rules: Vec<usize> = (0..lines.len()).filter(|&i| rules(lines[i]).is_some()).collect();
    for (i, line) in lines.iter().enumerate() {
        let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next()) else {
            continue;
        };
        let attributes = lines[..i].iter().rposition(|l| !(l.starts_with("///") || l.starts_with("#[")));
        let attributes = attributes.map_or(0, |at| at + 1)..i;
        if !lines[attributes.clone()].contains(&"#[test]") {
            continue;
        }
        let place = format!("{}:{}: {name}", file.name, i + 1);
        let said: Vec<&str> = lines[attributes.clone()].iter().copied().filter_map(rules).collect();
        lines_of_rules.retain(|at| !attributes.contains(at));
        match said[..] {
            [] if file.name.starts_with(MUST_SAY) => bad.push(format!(
                "{place} names no rule: write `/// Rules: 1, H2.` or `/// Rules: none.` above it"
            )),
            [] => {}
            [one] => match ids(one) {
                Ok(rules) => {
                    tests.push(Test { file: file.name.clone(), name: name.to_owned(), rules });
                }
                Err(id) => bad.push(format!("{place} names the rule `{id}`, which there is not")),
            },
            _ => bad.push(format!("{place} has {} lines of rules", said.len())),
        }
    }
    bad.extend(lines_of_rules.iter().map(|at| format!("{}:{}: rules of no test", file.name, at + 1)));
    tests
}

/// What stands behind `/// Rules:`, if the line is such a line.
fn rules(line: &str) -> Option<&str> {
    line.strip_prefix("/// Rules:").map(str::trim)
}

/// The IDs in `1, H2.`, or none for `none.`. The first that is no ID of a rule otherwise.
fn ids(said: &str) -> Result<Vec<String>, &str> {
    let said = said.strip_suffix('.').ok_or(said)?;
    if said == "none" {
        return Ok(Vec::new());
    }
    let known = |id: &str| RULES.iter().chain(ERRORS).any(|rule| rule.0 == id);
    said.split(", ").map(|id| if known(id) { Ok(id.to_owned()) } else { Err(id) }).collect()
}

fn list(tests: &[Test]) -> String {
    let mut list = format!(
        "# Rules and their tests\n\n\
         This list is generated from the line `/// Rules: …` above each test, and `cargo test --test tidy` compares\n\
         it with the tests. `{COMMAND}` writes it anew. The rules' texts stand in\n\
         `tests/tidy/rules.rs`; files are named from `tests`.\n"
    );
    let parts = [
        ("Rules of the protocol that implementations got wrong", RULES),
        ("Errors of the Haskell module that are not carried over", ERRORS),
    ];
    for (heading, rules) in parts {
        write!(list, "\n## {heading}\n").expect("a string can be written to");
        for (id, name, text) in rules {
            write!(list, "\n### {id} {name}\n\n{text}\n\n").expect("a string can be written to");
            add(&mut list, tests.iter().filter(|test| test.rules.iter().any(|rule| rule == id)));
        }
    }
    list += "\n## Conformance tests that belong to none of these rules\n\n";
    add(&mut list, tests.iter().filter(|test| test.rules.is_empty()));
    list
}

fn add<'a>(list: &mut String, tests: impl Iterator<Item = &'a Test>) {
    for Test { file, name, .. } in tests {
        let file = file.trim_start_matches("tests/");
        writeln!(list, "- `{file}` `{name}`").expect("a string can be written to");
    }
}
