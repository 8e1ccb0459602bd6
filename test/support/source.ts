/**
 * A small reader of TypeScript text: which characters are code, and which string literals there are. Enough for rules
 * about imports, globals and test names, without a compiler package.
 */
export interface StringLiteral {
  /** Offset of the opening quote. */
  readonly offset: number;
  /** Text between the quotes, escapes resolved where they are plain; `${…}` of a template becomes "…". */
  readonly text: string;
}

export interface Source {
  /** Same length as the text: comments, strings and regular expressions are blanked, quotes and line ends stay. */
  readonly code: string;
  readonly strings: readonly StringLiteral[];
}

/** After one of these a slash begins a regular expression, not a division. */
const BEFORE_REGEX =
  /(?:^|[=(,:;!&|?{}[+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|delete|throw|new|else|do|await|yield))\s*$/;

/** Splits source text into code and literals. Never throws: an unfinished literal ends with the text. */
export function readSource(text: string): Source {
  const characters = text.split("");
  const output = text.split("");
  const strings: StringLiteral[] = [];
  /** Brace depth at which each open template substitution ends. */
  const templates: { depth: number; offset: number; text: string }[] = [];
  let depth = 0;
  let index = 0;

  const blank = (from: number, to: number) => {
    for (let at = from; at < to && at < output.length; at += 1) {
      if (output[at] !== "\n") output[at] = " ";
    }
  };
  const codeBefore = (at: number) => output.slice(Math.max(0, at - 60), at).join("");

  /** Reads template text from `from` up to the closing backtick or the next `${`; returns where code goes on. */
  const readTemplate = (from: number, open: { offset: number; text: string }): number => {
    let at = from;
    while (at < characters.length) {
      const character = characters[at];
      if (character === "\\") {
        open.text += unescape(characters[at + 1] ?? "");
        at += 2;
      } else if (character === "`") {
        blank(from, at);
        strings.push({ offset: open.offset, text: open.text });
        return at + 1;
      } else if (character === "$" && characters[at + 1] === "{") {
        open.text += "…";
        blank(from, at + 2);
        templates.push({ depth, offset: open.offset, text: open.text });
        return at + 2;
      } else {
        open.text += character;
        at += 1;
      }
    }
    blank(from, at);
    return at;
  };

  while (index < characters.length) {
    const character = characters[index];
    const next = characters[index + 1];
    if (character === "/" && next === "/") {
      const end = text.indexOf("\n", index);
      const stop = end === -1 ? characters.length : end;
      blank(index, stop);
      index = stop;
    } else if (character === "/" && next === "*") {
      const end = text.indexOf("*/", index + 2);
      const stop = end === -1 ? characters.length : end + 2;
      blank(index, stop);
      index = stop;
    } else if (character === '"' || character === "'") {
      let at = index + 1;
      let value = "";
      while (at < characters.length && characters[at] !== character && characters[at] !== "\n") {
        if (characters[at] === "\\") {
          value += unescape(characters[at + 1] ?? "");
          at += 2;
        } else {
          value += characters[at];
          at += 1;
        }
      }
      strings.push({ offset: index, text: value });
      blank(index + 1, at);
      index = at + 1;
    } else if (character === "`") {
      index = readTemplate(index + 1, { offset: index, text: "" });
    } else if (character === "/" && BEFORE_REGEX.test(codeBefore(index))) {
      let at = index + 1;
      let inClass = false;
      while (at < characters.length && characters[at] !== "\n") {
        if (characters[at] === "\\") at += 1;
        else if (characters[at] === "[") inClass = true;
        else if (characters[at] === "]") inClass = false;
        else if (characters[at] === "/" && !inClass) break;
        at += 1;
      }
      blank(index + 1, at);
      index = at + 1;
    } else if (character === "{") {
      depth += 1;
      index += 1;
    } else if (character === "}") {
      const open = templates.at(-1);
      if (open !== undefined && open.depth === depth) {
        templates.pop();
        output[index] = " ";
        index = readTemplate(index + 1, open);
      } else {
        depth -= 1;
        index += 1;
      }
    } else {
      index += 1;
    }
  }
  return { code: output.join(""), strings: strings.sort((a, b) => a.offset - b.offset) };
}

/** Line of an offset, counted from 1. */
export function lineOf(text: string, offset: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at !== -1 && at < offset; at = text.indexOf("\n", at + 1)) {
    line += 1;
  }
  return line;
}

function unescape(character: string): string {
  return character === "n" ? "\n" : character === "t" ? "\t" : character;
}
