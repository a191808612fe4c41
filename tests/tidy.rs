//! Holds the tree to its own rules, from its source text: layers, Notes, sizes, where primitives and unsafe
//! code may stand, rules with their tests (in `tidy/rules.rs`), no sleeping, and no async runtime among the dependencies.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/rules.rs"]
mod rules;

/// The layer of each top-level module. A module names only modules of lower layers, and its own.
/// `testing` is the exception: there for tests only, with the feature `test-util`, it may name anything.
const LAYERS: &[(&str, u8)] = &[
    ("id", 0),
    ("sync", 0),
    ("limits", 0),
    ("queue", 0),
    ("short", 0),
    ("error", 1),
    ("memory", 1),
    ("peer", 1),
    ("table", 2),
    ("wire", 2),
    ("promise", 2),
    ("generated", 1),
    ("cap", 3),
    ("state", 4),
    ("transport", 4),
    ("conn", 5),
    ("vat", 6),
    ("lib", 7),
    ("guide", 7),
    ("testing", 7),
];

/// The longest file that still reads in one sitting, in lines.
const MAX_LINES: usize = 600;
/// Where unsafe code may stand.
const UNSAFE: &[&str] = &["src/cap/hook.rs", "src/memory/trim.rs"];
/// The most words that the map of the source may have: a page that is read in one sitting.
const MAX_WORDS_OF_NOTES: usize = 3500;
/// Where generated code is committed. The packages of the tests generate theirs in build scripts.
const GENERATED: &[&str] = &["src/generated/", "examples/generated/", "guide/generated/"];
/// What may not be among the normal dependencies.
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "futures-executor", "async-executor", "mio"];

#[test]
fn modules_name_only_modules_of_lower_layers() {
    let mut bad = Vec::new();
    for file in sources("src") {
        let module = file.module();
        let Some(layer) = layer(&module) else {
            bad.push(format!(
                "{}: module `{module}` has no layer: add it to LAYERS in tests/tidy.rs",
                file.name
            ));
            continue;
        };
        for (at, named) in file.crate_paths() {
            let place = file.place(at);
            match self::layer(&named) {
                _ if named == module || layer == 7 => {}
                Some(l) if l < layer => {}
                Some(l) => bad.push(format!(
                    "{place}: `{module}` (layer {layer}) names `{named}` (layer {l}), which is not below it"
                )),
                None => {
                    bad.push(format!("{place}: `crate::{named}` is no module of LAYERS in tests/tidy.rs"))
                }
            }
        }
    }
    report(bad);
}

#[test]
fn each_note_is_defined_once_in_src_and_cited_elsewhere() {
    let mut defined: Vec<(String, String, Range<usize>)> = Vec::new();
    let mut cited = Vec::new();
    let mut files: Vec<_> = ["src", "tests", "examples", "codegen"].into_iter().flat_map(sources).collect();
    files.retain(|f| f.name != "tests/tidy.rs");
    files.extend(
        ["NOTES.md", "README.md", "CONTRIBUTING.md", "benches/HISTORY.md"].into_iter().filter_map(File::read),
    );
    for file in &files {
        let lines: Vec<&str> = file.text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let line = uncomment(line);
            let next = lines.get(i + 1).map_or("", |l| uncomment(l));
            let both = format!("{line} {next}");
            for (at, _) in both.match_indices("Note [").filter(|(at, _)| *at <= line.len()) {
                let Some(title) = both[at + 6..].split_once(']').map(|(title, _)| title.to_owned()) else {
                    continue;
                };
                let heading = line == format!("Note [{title}]");
                if heading && next.len() >= 5 && next.chars().all(|c| c == '=') {
                    let end = (i + 1..lines.len()).find(|&j| {
                        let text = uncomment(lines[j]);
                        text.starts_with("```") || text.starts_with("Note [") || !is_comment(lines[j])
                    });
                    defined.push((title, file.name.clone(), i + 1..end.unwrap_or(lines.len()) + 1));
                } else {
                    cited.push((title, file.name.clone(), i + 1));
                }
            }
        }
    }
    let mut bad = Vec::new();
    for (title, file, line) in &cited {
        if !defined.iter().any(|(t, f, _)| t == title && f.starts_with("src/")) {
            bad.push(format!("{file}:{line}: Note [{title}] is cited, and defined nowhere in src"));
        }
    }
    for (i, (title, file, block)) in defined.iter().enumerate() {
        let line = block.start;
        if !file.starts_with("src/") {
            bad.push(format!("{file}:{line}: Note [{title}] is defined outside src"));
        }
        if defined[..i].iter().any(|(t, ..)| t == title) {
            bad.push(format!("{file}:{line}: Note [{title}] is defined a second time"));
        }
        if !cited.iter().any(|(t, f, l)| t == title && !(f == file && block.contains(l))) {
            bad.push(format!("{file}:{line}: Note [{title}] is cited nowhere"));
        }
    }
    report(bad);
}

#[test]
fn files_start_with_module_docs_and_have_at_most_max_lines() {
    let mut bad = Vec::new();
    for file in own_sources() {
        if !file.text.starts_with("//!") {
            bad.push(format!("{}:1: does not start with module docs (`//!`)", file.name));
        }
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            bad.push(format!("{}:{lines}: longer than {MAX_LINES} lines", file.name));
        }
    }
    report(bad);
}

#[test]
fn threads_and_locks_are_named_only_in_sync() {
    let mut bad = Vec::new();
    for file in sources("src").into_iter().filter(|f| f.module() != "sync") {
        for root in ["std", "core", "alloc"] {
            for (at, head) in file.heads(&format!("{root}::")) {
                if matches!(head.as_str(), "sync" | "thread" | "thread_local") {
                    bad.push(format!("{}: {root}::{head} outside src/sync", file.place(at)));
                }
            }
        }
        for name in ["parking_lot", "shuttle::", "loom::", "use shuttle", "use loom"] {
            for at in file.words(name) {
                bad.push(format!("{}: `{name}` outside src/sync", file.place(at)));
            }
        }
    }
    report(bad);
}

#[test]
fn unsafe_code_stands_in_two_files_with_safety_comments() {
    let mut bad = Vec::new();
    for file in own_sources() {
        let lines: Vec<&str> = file.text.lines().collect();
        let mut places: Vec<usize> = file.words("unsafe").collect();
        places.extend(file.words("allow(unsafe_code").chain(file.words("expect(unsafe_code")));
        for at in places {
            if !UNSAFE.contains(&&*file.name) {
                bad.push(format!("{}: unsafe code, which only {UNSAFE:?} may have", file.place(at)));
            }
            let rest = file.code[at..].strip_prefix("unsafe").unwrap_or_default().trim_start();
            if rest.starts_with('{') || rest.starts_with("impl") {
                let mut above = lines[..file.line(at) - 1].iter().rev().map(|l| l.trim_start());
                let mut above = above.by_ref().take_while(|l| l.starts_with("//") || l.starts_with("#["));
                if !above.any(|l| l.starts_with("// SAFETY:")) {
                    bad.push(format!("{}: no `// SAFETY:` directly above", file.place(at)));
                }
            }
        }
    }
    report(bad);
}

#[test]
fn notes_md_has_at_most_max_words() {
    let notes = File::read("NOTES.md").expect("NOTES.md is there");
    let words = notes.text.split_whitespace().count();
    assert!(
        words <= MAX_WORDS_OF_NOTES,
        "NOTES.md has {words} words of at most {MAX_WORDS_OF_NOTES}: it is a map; figures and their history go to \
         benches/HISTORY.md, what a user must know to the guide, and what explains code to a Note beside it"
    );
}

#[test]
fn code_map_of_notes_md_has_each_module_with_its_layer() {
    let notes = File::read("NOTES.md").expect("NOTES.md is there");
    let missing = LAYERS.iter().filter(|(module, _)| *module != "guide").filter(|(module, layer)| {
        !notes.text.lines().any(|line| line.starts_with(&format!("| {layer} | `{module}` | ")))
    });
    report(missing.map(|(module, layer)| format!("NOTES.md: no row `| {layer} | `{module}` | …`")).collect());
}

#[test]
fn names_beside_the_haskell_module_in_notes_md_exist_in_src() {
    let notes = File::read("NOTES.md").expect("NOTES.md is there");
    let code: Vec<File> = sources("src");
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned).collect()
    };
    let known: HashSet<String> = code.iter().flat_map(|file| words(&file.code)).collect();
    let table = notes.text.lines().enumerate().skip_while(|(_, l)| *l != "## Beside the Haskell module");
    let mut bad = Vec::new();
    let mut names = 0;
    for (i, line) in table {
        let here = line.split('|').nth(2).unwrap_or_default();
        for name in here.split('`').skip(1).step_by(2) {
            names += 1;
            for word in words(name).into_iter().filter(|word| !known.contains(word)) {
                bad.push(format!("NOTES.md:{}: `{name}`: there is no `{word}` in src", i + 1));
            }
        }
    }
    assert!(names > 100, "the table names {names} definitions");
    report(bad);
}

#[test]
fn nothing_sleeps() {
    let mut bad = Vec::new();
    for file in ["src", "tests"].into_iter().flat_map(sources) {
        for at in file.words("sleep(") {
            bad.push(format!("{}: sleeps; wait for what is to happen instead", file.place(at)));
        }
    }
    for path in walk(&root().join("tests")) {
        let Some(file) = File::read(&relative(&path)).filter(|f| !f.name.ends_with(".rs")) else { continue };
        for (i, _) in file.text.lines().enumerate().filter(|(_, l)| l.contains("sleep")) {
            bad.push(format!("{}:{}: sleeps; wait for what is to happen instead", file.name, i + 1));
        }
    }
    report(bad);
}

#[test]
fn generated_code_is_committed_where_users_build_or_read_it() {
    let mut found: Vec<String> = Vec::new();
    for folder in ["src", "tests", "examples", "guide", "benches", "codegen", "fuzz"] {
        let names = walk(&root().join(folder)).into_iter().map(|path| relative(&path));
        found.extend(names.filter(|name| name.ends_with("_capnp.rs")));
    }
    for folder in GENERATED {
        assert!(found.iter().any(|name| name.starts_with(folder)), "no generated code in {folder}");
    }
    found.retain(|name| !GENERATED.iter().any(|folder| name.starts_with(folder)));
    let explain = |name| format!("{name}: generate it in a build script, as `tests/typed/build.rs` does");
    report(found.into_iter().map(explain).collect());
}

#[test]
fn no_async_runtime_is_a_normal_dependency() {
    let tree = |offline: &[&str]| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root()).args(["tree", "-p", "capnp-threads", "-e", "normal", "--prefix", "none"]);
        cargo.args(offline).output().expect("cargo runs")
    };
    let mut output = tree(&["--offline"]);
    if !output.status.success() {
        output = tree(&[]);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.starts_with("capnp-threads "),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = text.lines().filter_map(|l| l.split(' ').next());
    let bad = names.filter(|n| RUNTIMES.contains(n)).map(|n| format!("{n} is a normal dependency")).collect();
    report(bad);
}

/// The reading that the tests above rely on.
#[test]
fn crate_paths_in_comments_and_literals_are_not_found() {
    let text = r##"//! crate::a
use crate::{b::{c, d}, e};
fn f<'a>(x: &'a str) -> char { let _ = ("crate::g \" ", r#"" crate::h"#, '"', b'\'', /* /* */ crate::i */ 1); 'x' }
mod inner { fn g() { crate::j::k(); super::super::l(); super::super::super::m::n(); } }
fn h() { super::super::o::p(); super::q(); }
"##;
    let file = File { name: "src/x/y.rs".into(), text: text.into(), code: blank(text) };
    let got: Vec<_> = file.crate_paths().into_iter().map(|(at, name)| (file.line(at), name)).collect();
    let want = [(2, "b"), (2, "e"), (4, "j"), (4, "m"), (5, "o")];
    assert_eq!(got, want.map(|(line, name)| (line, name.to_owned())));
    assert_eq!(file.code.len(), text.len());
}

/// A source file: its name from the root, its text, and its text with comments and literals blanked out.
struct File {
    name: String,
    text: String,
    code: String,
}

impl File {
    fn read(name: &str) -> Option<File> {
        let text = fs::read_to_string(root().join(name)).ok()?;
        let code = if name.ends_with(".rs") { blank(&text) } else { String::new() };
        Some(File { name: name.to_owned(), text, code })
    }

    /// The names of the modules from the crate's root down to this file.
    fn path(&self) -> Vec<&str> {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').filter(|p| !matches!(*p, "mod" | "lib")).collect()
    }

    /// The top-level module that this file belongs to.
    fn module(&self) -> String {
        self.path().first().unwrap_or(&"lib").to_string()
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text[..at].matches('\n').count()
    }

    fn place(&self, at: usize) -> String {
        format!("{}:{}", self.name, self.line(at))
    }

    /// Where `word` stands in the code, not as the end of a longer word, nor as the start of one.
    fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let open = word.ends_with(is_word);
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let goes_on = open && self.code[at + word.len()..].starts_with(is_word);
            !(goes_on || self.code[..*at].ends_with(is_word))
        })
    }

    /// The segments that follow `prefix` in paths: one, or those of a group in braces.
    fn heads(&self, prefix: &str) -> Vec<(usize, String)> {
        self.words(prefix)
            .flat_map(|at| heads(&self.code[at + prefix.len()..]).map(move |h| (at, h)))
            .collect()
    }

    /// The top-level modules that paths name, through `crate` or through enough `super`s.
    fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut found = self.heads("crate::");
        for at in self.words("super::").filter(|at| !self.code[..*at].ends_with("super::")) {
            let rest = self.code[at..].trim_start_matches("super::");
            let supers = (self.code.len() - at - rest.len()) / "super::".len();
            if supers >= self.path().len() + self.inline_depth(at) {
                found.extend(heads(rest).map(|h| (at, h)));
            }
        }
        found.sort();
        found
    }

    /// How many `mod name { … }` of this file are open at `at`.
    fn inline_depth(&self, at: usize) -> usize {
        let mut open = Vec::new();
        for (i, c) in self.code[..at].char_indices() {
            match c {
                '{' => {
                    let mut before = self.code[..i].split_whitespace().rev();
                    open.push(before.nth(1) == Some("mod"));
                }
                '}' => drop(open.pop()),
                _ => {}
            }
        }
        open.into_iter().filter(|is_mod| *is_mod).count()
    }
}

/// The first segment of a path, or the first segments of each path in a group. A glob counts as `*`.
fn heads(path: &str) -> impl Iterator<Item = String> {
    let first = |p: &str| -> String {
        let p = p.trim();
        let end = p.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'));
        p[..end.unwrap_or(p.len())].to_owned()
    };
    let mut found = Vec::new();
    match path.strip_prefix('{') {
        None => found.push(first(path)),
        Some(group) => {
            let (mut depth, mut start) = (0usize, 0);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        found.push(first(&group[start..i]));
                        start = i + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    _ => {}
                }
            }
            found.retain(|f| !f.is_empty());
        }
    }
    found.into_iter()
}

/// The text with everything inside comments, strings and characters turned to spaces; as long as before.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let part_of_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let hashes = rest.bytes().skip(1).take_while(|b| *b == b'#').count();
        let (len, hide) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true)
        } else if rest.starts_with("/*") {
            (block_comment(rest), true)
        } else if c == '"' {
            (quoted(rest, '"').unwrap_or(rest.len()), true)
        } else if c == 'r' && rest[1 + hashes..].starts_with('"') && (!part_of_word || out.ends_with('b')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = hashes + 2;
            (rest[body..].find(&end).map_or(rest.len(), |i| body + i + end.len()), true)
        } else if c == '\'' {
            quoted(rest, '\'').map_or((1, false), |len| (len, true))
        } else {
            (c.len_utf8(), false)
        };
        let (token, tail) = rest.split_at(len);
        if hide {
            out.extend(token.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(token);
        }
        rest = tail;
    }
    out
}

/// The length of the literal that `text` starts with. A character that is none is a lifetime: `None`.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (n, (i, c)) in text.char_indices().enumerate().skip(1) {
        if c == quote && !escaped {
            return Some(i + 1);
        }
        if quote == '\'' && n >= 2 && !text[1..].starts_with('\\') {
            return None;
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The length of the comment that `text` starts with; such comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (1, 2);
    while depth > 0 {
        match (text[at..].find("/*"), text[at..].find("*/")) {
            (Some(open), Some(close)) if open < close => (depth, at) = (depth + 1, at + open + 2),
            (_, Some(close)) => (depth, at) = (depth - 1, at + close + 2),
            (_, None) => return text.len(),
        }
    }
    at
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// A line without its comment marks.
fn uncomment(line: &str) -> &str {
    let line = line.trim();
    let text = line.strip_prefix("//").map(|l| l.trim_start_matches(['/', '!']));
    text.unwrap_or(line).trim_start()
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(m, _)| *m == module).map(|(_, layer)| *layer)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    let parts = path.strip_prefix(root()).expect("under the root").iter();
    parts.map(|p| p.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// All files under a folder, in order of their names.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|e| e.expect("a folder can be read").path());
    let mut paths: Vec<_> =
        entries.filter(|p| !p.ends_with("target") && !p.ends_with("__pycache__")).collect();
    paths.sort();
    paths.into_iter().flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p] }).collect()
}

/// The Rust files under a folder, which may be missing.
fn sources(folder: &str) -> Vec<File> {
    let names = walk(&root().join(folder)).into_iter().map(|p| relative(&p));
    names.filter(|n| n.ends_with(".rs")).filter_map(|n| File::read(&n)).collect()
}

/// The sources that are not generated.
fn own_sources() -> Vec<File> {
    sources("src").into_iter().filter(|f| f.module() != "generated").collect()
}

fn report(bad: Vec<String>) {
    assert!(bad.is_empty(), "\n{}\n", bad.join("\n"));
}
