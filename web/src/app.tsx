/** The frame of every page: name, navigation, choice of model. */

import { useEffect } from "preact/hooks";
import { Icon, Logo } from "./ui/icons";
import { Notice } from "./ui/fields";
import { ComparePage } from "./pages/compare/page";
import { EditPage, form as editForm } from "./pages/edit/page";
import { GeneratePage, form as generateForm } from "./pages/generate/page";
import { UnderstandPage } from "./pages/understand/page";
import { chosen, loadModels, loadProblem, model, served } from "./store/models";
import { type Page, PAGES, route } from "./store/route";

const TITLES: Record<Page, string> = { generate: "Generate", edit: "Edit", compare: "Compare", understand: "Understand" };

export function App() {
  useEffect(() => void loadModels(), []);
  const { page } = route.value;
  useEffect(() => {
    document.title = `${TITLES[page]} · Heptapod studio`;
  }, [page]);
  return (
    <>
      <Header page={page} />
      {served.value ? <Content page={page} /> : <Loading />}
    </>
  );
}

function Header({ page }: { page: Page }) {
  const models = served.value?.models ?? [];
  return (
    <header class="top">
      <a class="brand" href="#/generate" aria-label="Heptapod studio">
        <Logo />
        <span>Heptapod</span>
      </a>
      <nav aria-label="Pages">
        {PAGES.map((name) => (
          <a key={name} href={`#/${name}`} {...(name === page ? { "aria-current": "page" as const } : {})}>
            {TITLES[name]}
          </a>
        ))}
      </nav>
      <div class="top-right">
        {models.length > 0 && page !== "compare" && (
          <label class="inline">
            <span>model</span>
            {models.length === 1 ? (
              <b>{models[0]!.name}</b>
            ) : (
              <select value={model.value?.name ?? ""} onChange={(event) => choose(page, event.currentTarget.value)}>
                {models.map(({ name }) => (
                  <option key={name} value={name}>
                    {name}
                  </option>
                ))}
              </select>
            )}
          </label>
        )}
        <a class="quiet" href="docs">
          API
        </a>
      </div>
    </header>
  );
}

function choose(page: Page, name: string): void {
  if (page === "generate") generateForm.choose(name);
  else if (page === "edit") editForm.choose(name);
  else chosen.value = name;
}

function Loading() {
  return (
    <main class="loading">
      {loadProblem.value ? (
        <>
          <Notice kind="problem">{loadProblem.value}</Notice>
          <button type="button" onClick={() => void loadModels()}>
            <Icon name="retry" /> Try again
          </button>
        </>
      ) : (
        <p role="status">Loading …</p>
      )}
    </main>
  );
}

function Content({ page }: { page: Page }) {
  const offer = served.value!;
  if (!offer.models.length) {
    return (
      <main class="loading">
        <Notice kind="info">This server has no models. Start it with one: heptapod studio FOLDER</Notice>
      </main>
    );
  }
  if (page === "generate") return <GeneratePage served={offer} />;
  if (page === "edit") return <EditPage served={offer} />;
  if (page === "compare") return <ComparePage served={offer} />;
  return <UnderstandPage />;
}
