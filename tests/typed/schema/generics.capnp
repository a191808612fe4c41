# Interfaces with type parameters, and methods with some of their own.

@0xf3ae1f7ec3c846c7;

struct Pair(First, Second) {
  first @0 :First;
  second @1 :Second;
}

struct Wrapped(T) {
  value @0 :T;
  cell @1 :Cell(T);
  wrapped @2 :Pair(T, Cell(T));
}

interface Cell(T) {
  get @0 () -> (value :T);
  set @1 (value :T) -> ();
  swap @2 Pair(T, T) -> Pair(Text, T);
  # The first is what the cell must hold; the second is put in its place.
  watch @3 (watcher :Watcher) -> ();
  tell @4 (reader :Reading(Text)) -> (told :Bool);
  wrap @5 () -> Wrapped(T);
  fill @6 (value :T) -> stream;

  interface Watcher {
    # Uses the outer interface's parameter.
    changed @0 (to :T) -> ();
  }

  interface Reading(As) {
    # Uses the outer's, and one of its own.
    read @0 (value :T) -> (as :As);
  }
}

interface NamedCell(T) extends(Cell(T)) {
  name @0 () -> (name :Text);
}

interface TextCell extends(NamedCell(Text)) {
  # The interface two above has a brand that is not written here.
  length @0 () -> (length :UInt32);
}

interface Shelf(Key, Value) {
  put @0 (key :Key, value :Value) -> ();
  take @1 (key :Key) -> (value :Value);
  entries @2 () -> (entries :List(Entry));
  cursor @3 () -> (cursor :Cursor);

  struct Entry {
    key @0 :Key;
    value @1 :Value;
  }

  interface Cursor {
    next @0 () -> (entry :Entry);
  }
}

interface Turned(A, B) extends(Shelf(B, A)) {
  turned @0 (a :A, b :B) -> Pair(B, A);
}

interface Catalogue extends(Turned(Data, Text), TextCell) {
  # A shelf of data under texts, and a cell besides.
  size @0 () -> (size :UInt32);
}

interface AnyCell extends(Cell) {
  # Parameters that are left out are any pointers.
  clear @0 () -> ();
}

interface Generic {
  # Methods with parameters of their own.

  same @0 [T] (value :T) -> (value :T);
  turn @1 [A, B] Pair(A, B) -> Pair(B, A);
  empty @2 [T] (cell :Cell(T)) -> (value :T, cell :Cell(T));
}

interface GenericIn(Outer) {
  couple @0 [Inner] (outer :Outer, inner :Inner) -> Pair(Outer, Inner);
  cells @1 () -> (texts :Cell(Text), outers :Cell(Outer), both :Pair(Cell(Outer), Cell(Text)));
}
