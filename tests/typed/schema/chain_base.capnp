# The end of a chain of imports.

@0xbd5e5c3b3b8f7a51;

interface Base(T) {
  base @0 (value :T) -> (kind :Kind, mark :Mark);

  enum Kind {
    plain @0;
    fancy @1;
  }

  struct Mark {
    value @0 :T;
  }
}
