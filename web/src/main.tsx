import { render } from "preact";
import { App } from "./app";
import "./style/base.css";
import "./style/controls.css";
import "./style/pictures.css";
import "./style/generate.css";
import "./style/ask.css";
import "./style/edit.css";
import "./style/compare.css";
import "./style/understand.css";

render(<App />, document.getElementById("app")!);
