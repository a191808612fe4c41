//! Members of a schema for which no code can be generated.

use std::fmt;

use crate::prepare::{Kind, Suspect};

/// A member that the code has nothing for, and why.
#[derive(Debug)]
pub(crate) struct LeftOut {
    file: String,
    line: Option<usize>,
    what: String,
    reason: String,
}

impl LeftOut {
    /// `source` is the text of the schema, if that is at hand.
    pub(crate) fn new(file: &str, source: Option<&str>, member: &Suspect, reason: &str) -> Self {
        let line = source.and_then(|source| line(source, &member.scope_name, &member.name));
        let kind = if let Kind::Field(_) = member.kind { "field" } else { "declaration" };
        let of = match &*member.scope_name {
            "" => String::new(),
            scope => format!(" of `{scope}`"),
        };
        let what = format!("the {kind} `{}`{of}", member.name);
        LeftOut { file: file.to_owned(), line, what, reason: reason.to_owned() }
    }

    /// Tells whoever runs a build script, or the compiler.
    pub(crate) fn warn(&self) {
        match std::env::var_os("OUT_DIR") {
            Some(_) => println!("cargo:warning={self}"),
            None => eprintln!("warning: {self}"),
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": no code is generated for {}: {}", self.what, self.reason)
    }
}

/// The line, counted from one, on which a schema declares a member of a scope (`Outer.Inner`, `Outer.group`,
/// `Outer.method$Params`).
fn line(source: &str, scope: &str, member: &str) -> Option<usize> {
    // The params of a method are declared within its own declaration, not in a scope.
    let (scope, method) = match scope.split_once('$') {
        Some((path, _)) => path.rsplit_once('.').unwrap_or(("", path)),
        None => (scope, ""),
    };
    let path: Vec<&str> = scope.split('.').filter(|name| !name.is_empty()).collect();
    let mut scopes: Vec<Option<String>> = Vec::new();
    let mut statement: Vec<String> = Vec::new();
    let mut in_method = false;
    for (number, token) in tokens(source) {
        match &*token {
            "{" => {
                scopes.push(declared(&statement));
                statement.clear();
            }
            "}" => {
                scopes.pop();
                statement.clear();
            }
            ";" => {
                statement.clear();
                in_method = false;
            }
            _ => {
                let here = scopes.iter().flatten().eq(path.iter().copied());
                let names_method = here && statement.is_empty() && token == method;
                in_method |= names_method;
                let starts = match &*statement {
                    [] => true,
                    [.., last] => {
                        in_method && (last == "(" || last == ",") || last == "const" || last == "annotation"
                    }
                };
                let wanted = token == member && !names_method && in_method != method.is_empty();
                if here && starts && wanted {
                    return Some(number);
                }
                statement.push(token);
            }
        }
    }
    None
}

/// The name of the scope that a statement opens; `None` for a union without a name.
fn declared(statement: &[String]) -> Option<String> {
    match statement {
        [keyword, name, ..] if ["struct", "interface", "enum"].contains(&&**keyword) => Some(name.clone()),
        [union, ..] if union == "union" => None,
        [name, ..] => Some(name.clone()),
        [] => None,
    }
}

/// Words and signs with the numbers of their lines, without comments and strings.
fn tokens(source: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    (1..).zip(source.lines()).flat_map(|(number, line)| {
        let mut tokens = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' if quoted => drop(chars.next()),
                '"' => quoted = !quoted,
                _ if quoted => {}
                '#' => break,
                c if c.is_alphanumeric() => word.push(c),
                c => {
                    tokens.extend((!word.is_empty()).then(|| (number, std::mem::take(&mut word))));
                    tokens.extend((!c.is_whitespace()).then(|| (number, c.to_string())));
                }
            }
        }
        tokens.extend((!word.is_empty()).then_some((number, word)));
        tokens
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_members_are_found() {
        let schema = "struct A { # b @0
  b @0 :Text = \"struct A { c @0\";
  union {
    c @1 :Text;
    d :group {
      b @2 :Text;
    }
  }
  struct B {
    b @0 :A;
  }
  const b2 :A = (b = \"x\");
}
interface C(T) extends(D(A)) {
  b @0 (a :Text,
    b :A) -> (b :A);
  c @1 (b :Text = \"\",
    c :A);
}
const b :UInt8 = 1;
";
        assert_eq!(line(schema, "A", "b"), Some(2));
        assert_eq!(line(schema, "A", "c"), Some(4));
        assert_eq!(line(schema, "A.d", "b"), Some(6));
        assert_eq!(line(schema, "A.B", "b"), Some(10));
        assert_eq!(line(schema, "A", "b2"), Some(12));
        assert_eq!(line(schema, "C.b$Params", "b"), Some(16));
        assert_eq!(line(schema, "C.c$Params", "c"), Some(18));
        assert_eq!(line(schema, "", "b"), Some(20));
        assert_eq!(line(schema, "A", "none"), None);
    }
}
