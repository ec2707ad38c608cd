/** Generate: an image step by step with the prediction of the whole grid; go back, query a cell, continue differently. */

import { useEffect } from "preact/hooks";
import type { Served } from "../../api/types";
import { Form } from "../../store/form";
import { chosen } from "../../store/models";
import { route } from "../../store/route";
import { asked } from "../../store/stage";
import { Actions } from "./actions";
import { AskPanel } from "./ask";
import { Panels } from "./panels";
import { SettingsPanel } from "./settings_panel";
import { History, Strip } from "./strip";
import { Transport } from "./transport";

export const form = new Form("generate", chosen);

export function GeneratePage({ served }: { served: Served }) {
  const here = route.value;
  useEffect(() => form.load(), [here]);
  const model = form.model.value;
  if (!model) return null;
  return (
    <main class={`generate${asked.value === null ? "" : " asking"}`}>
      <h1 class="unseen">Generate</h1>
      <div class="side">
        <SettingsPanel form={form} model={model} limits={served.limits} />
        <AskPanel />
      </div>
      <div class="stage">
        <Panels model={model} />
        <Transport />
        <Actions />
        <div class="below">
          <Strip />
          <History />
        </div>
      </div>
    </main>
  );
}
