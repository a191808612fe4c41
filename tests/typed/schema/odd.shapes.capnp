# Shapes that are rare, and names that generated code has a use for. (The dot in the file's name is one of them.)

@0xc57d7bbd47ce5f6a;

using Middle = import "chain_middle.capnp";

interface Shelf(T) {
  # What it declares does not use the parameter.

  enum Order {
    rising @0;
    falling @1;
  }

  struct Mark {
    row @0 :UInt16;
    order @1 :Order;
    union {
      none @2 :Void;
      text @3 :Text;
    }
  }

  put @0 (value :T, order :Order, mark :Mark) -> (value :T, marks :List(Mark), orders :List(Order));

  const first :Mark = (row = 1, order = falling);
}

struct Choice(T, U) {
  # A union with clients of generic interfaces, with an enum of a generic scope, with a group that uses one parameter
  # of two, and with members called as generated types or as an enum beside them.

  enum Kind {
    good @0;
    bad @1;
  }

  union {
    shelf @0 :Shelf(T);
    kind @1 :Kind;
    group :group {
      left @2 :T;
    }
    reader @3 :Text;
    builder @4 :UInt8;
    owned @5 :Void;
    which @6 :Void;
    pipeline @7 :List(Shelf(U));
    capability @8 :Capability;
  }
}

struct Alone(T) {
  # Nothing in the union has a lifetime.

  union {
    shelf @0 :Shelf(T);
    nothing @1 :Void;
  }
}

struct Taken {
  # Declares what is also generated.

  enum Reader { a @0; b @1; }
  enum Which { a @0; b @1; }
  enum Option { a @0; b @1; }
  enum From { a @0; b @1; }
  enum Side { a @0; b @1; }
  enum Nothing {}
  struct Core { text @0 :Text; }
  struct Group { text @0 :Text; }

  reader @0 :Reader;
  of :union {
    which @1 :Which;
    core @2 :Core;
  }
  option @3 :Option;
  from @4 :From;
  side :group {
    side @5 :Side;
  }
  group :group {
    inner @6 :Group;
  }
  nothing @7 :Nothing;
  union {
    one @8 :Side;
    two @9 :Core;
  }
}

annotation taken @0xd8d2a4c4ed1d2d0b (struct) :Text;
# Its module would be that of the struct.

interface Called {
  # Declares what its methods' structs are called as.

  move @0 (of :MoveParams) -> (kind :MoveResults, client :Client, box :Box);

  struct MoveParams $taken("move") { text @0 :Text; }
  enum MoveResults { a @0; b @1; }
  enum Client { a @0; b @1; }
  enum Server { a @0; b @1; }
  enum Box { a @0; b @1; }
}

interface Parameters(Client, Server, Box, MakeParams) {
  # Parameters called as generated types, and as those of the scope around them.

  make @0 (client :Client, server :Server) -> (box :Box, params :MakeParams, inner :Inner(Text));

  struct Inner(Client) {
    client @0 :Client;
    box @1 :Box;
  }
}

struct Lists {
  capabilities @0 :List(Capability);
  table @1 :List(List(Capability));
  lists @2 :List(AnyList);
  one @3 :Capability;
  choice @4 :Choice(List(Capability), Text);
}

interface Keeper {
  keep @0 Lists -> Lists;
  chosen @1 Choice(Text, Data) -> Choice(Text, Data);
}

const mark :Middle.TextMark = (value = "far");
const anything :AnyPointer = .mark;


interface Far extends(Middle.Middle(Text)) {
  # Types of a file that is imported by an imported one.

  far @0 (mark :Middle.TextMark) -> Middle.TextMark;
}
