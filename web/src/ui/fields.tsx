/** Labeled controls. */

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { randomSeed } from "../logic/settings";
import { Icon, type IconName } from "./icons";

interface FieldProps {
  label: string;
  hint?: string | undefined;
  problem?: string | null | undefined;
  changed?: boolean | undefined;
  wide?: boolean | undefined;
  children: (ids: { id: string; "aria-describedby"?: string; "aria-invalid"?: boolean }) => ComponentChildren;
}

function Field({ label, hint, problem, changed, wide, children }: FieldProps) {
  const id = useId();
  const note = problem ?? hint;
  const about = [changed && `${id}-tag`, note && `${id}-note`].filter(Boolean).join(" ");
  const described = about ? { "aria-describedby": about } : {};
  return (
    <div class={`field${changed ? " changed" : ""}${wide ? " wide" : ""}`}>
      <div class="head">
        <label for={id}>{label}</label>
        {changed && (
          <span id={`${id}-tag`} class="tag">
            differs
          </span>
        )}
      </div>
      {children({ id, ...described, ...(problem ? { "aria-invalid": true } : {}) })}
      {note && (
        <p id={`${id}-note`} class={problem ? "note problem" : "note"}>
          {note}
        </p>
      )}
    </div>
  );
}

type Common = Omit<FieldProps, "children"> & {
  value: string;
  onChange: (value: string) => void;
  disabled?: boolean;
  required?: boolean | undefined;
};

export interface NumberProps extends Common {
  min?: number | undefined;
  max?: number | undefined;
  step?: number | "any" | undefined;
  placeholder?: string | undefined;
  /** Takes the value when editing ends, where a half-typed one makes no sense. */
  atTheEnd?: boolean;
}

export function NumberField({ value, onChange, atTheEnd, min, max, step, placeholder, required, disabled, ...field }: NumberProps) {
  const take = (event: Event) => onChange((event.currentTarget as HTMLInputElement).value);
  return (
    <Field {...field}>
      {(ids) => (
        <input
          {...ids}
          type="number"
          inputMode="decimal"
          {...{ min, max, step, placeholder, required, disabled, value }}
          {...(atTheEnd ? { onChange: take } : { onInput: take })}
        />
      )}
    </Field>
  );
}

export function SeedField({ value, onChange, ...field }: Common) {
  return (
    <Field {...field}>
      {(ids) => (
        <div class="joined">
          <input
            {...ids}
            type="number"
            inputMode="numeric"
            min={0}
            max={Number.MAX_SAFE_INTEGER}
            step={1}
            required
            value={value}
            onInput={(event) => onChange(event.currentTarget.value)}
          />
          <IconButton icon="dice" label="Random seed" onClick={() => onChange(String(randomSeed()))} />
        </div>
      )}
    </Field>
  );
}

export function TextField({ value, onChange, required, pattern, title, ...field }: Common & { pattern?: string; title?: string }) {
  return (
    <Field {...field}>
      {(ids) => (
        <input
          {...ids}
          type="text"
          autocomplete="off"
          spellcheck={false}
          {...{ value, required, pattern, title }}
          onInput={(event) => onChange(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

export type Option = [value: string, text: string];

export function SelectField({ value, onChange, options, disabled, ...field }: Common & { options: Option[] }) {
  return (
    <Field {...field}>
      {(ids) => (
        <select {...ids} {...{ value, disabled }} class={value === "" ? "own" : ""} onChange={(event) => onChange(event.currentTarget.value)}>
          {options.map(([option, text]) => (
            <option key={option} value={option} selected={option === value}>
              {text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

export function CheckBox(props: { label: string; checked: boolean; onChange: (checked: boolean) => void; disabled?: boolean }) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={props.checked}
        disabled={props.disabled}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      <span>{props.label}</span>
    </label>
  );
}

interface IconButtonProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  pressed?: boolean;
}

export function IconButton({ icon, label, onClick, disabled, pressed }: IconButtonProps) {
  const state = pressed === undefined ? {} : { "aria-pressed": pressed };
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} {...{ onClick, disabled }} {...state}>
      <Icon name={icon} />
    </button>
  );
}

interface SegmentsProps<T extends string> {
  label: string;
  value: T;
  options: [value: T, text: string][];
  onChange: (value: T) => void;
}

/** One of a few, all visible. */
export function Segments<T extends string>({ label, value, options, onChange }: SegmentsProps<T>) {
  const name = useId();
  return (
    <fieldset class="segments">
      <legend class="unseen">{label}</legend>
      {options.map(([option, text]) => (
        <label key={option}>
          <input type="radio" {...{ name }} checked={option === value} onChange={() => onChange(option)} />
          <span>{text}</span>
        </label>
      ))}
    </fieldset>
  );
}

export function Notice({ kind, children }: { kind: "problem" | "warning" | "info"; children: ComponentChildren }) {
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (kind === "problem") element.current?.scrollIntoView({ block: "nearest" });
  }, [kind]);
  return (
    <div ref={element} class={`notice ${kind}`} role={kind === "problem" ? "alert" : "status"}>
      {children}
    </div>
  );
}
