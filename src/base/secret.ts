const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** A value that prints as [secret] everywhere; `reveal()` is its only exit, so it can be searched for. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return "[secret]";
  }

  toJSON(): string {
    return "[secret]";
  }

  [INSPECT](): string {
    return "[secret]";
  }
}
