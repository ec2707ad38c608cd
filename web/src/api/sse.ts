/** Server-sent events out of a stream of text, which may be cut anywhere. */

export interface ServerEvent {
  event: string;
  data: string;
}

/** Collects text and gives back the events that are complete. */
export class EventParser {
  /** What has come of an event that is not complete: joined once, as a picture comes in many pieces. */
  private pieces: string[] = [];

  push(text: string): ServerEvent[] {
    const piece = text.replaceAll("\r", "");
    if (!piece) return [];
    const joint = (this.pieces.at(-1)?.at(-1) ?? "") + piece;
    this.pieces.push(piece);
    if (!joint.includes("\n\n")) return [];
    const blocks = this.pieces.join("").split("\n\n");
    this.pieces = [blocks.pop()!].filter(Boolean);
    return blocks.map(parseBlock).filter((event) => event !== null);
  }
}

function parseBlock(block: string): ServerEvent | null {
  let event = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    if (line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? { event, data: data.join("\n") } : null;
}
