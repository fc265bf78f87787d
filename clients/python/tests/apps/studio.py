"""A small app as its users write it: two widgets, a history, and a function that is slow."""

import uuid

import streamlit as st

import reprise_client.streamlit as reprise


@st.cache_data(persist="disk", show_spinner=False)
def render(prompt: str) -> str:
    # Tells whether it was computed again.
    return f"{prompt}/{uuid.uuid4().hex}"


state = reprise.session(defaults={"tempo": 120, "prompt": "", "count": 0, "other": 0})
for name in ("tempo", "prompt"):
    st.session_state.setdefault(name, state[name])

state["tempo"] = st.slider("Tempo", 60, 180, key="tempo")
state["prompt"] = st.text_input("Prompt", key="prompt")

if st.button("Keep"):
    state.history.append({"prompt": state["prompt"], "tempo": state["tempo"]})
    st.rerun()
if st.button("Forget"):
    render.clear()
st.button("Again")



@st.fragment
def counters() -> None:
    if st.button("Count"):
        state["count"] += 1
    if st.button("Other"):
        reprise.session()["other"] += 1
    st.text(f"count is {state['count']}")


counters()
st.text(f"tempo is {state['tempo']}")
st.text(f"prompt is [{state['prompt']}]")
st.text("kept are [" + ", ".join(item["data"]["prompt"] for item in state.history) + "]")
if state["prompt"]:
    st.text(f"result is [{render(state['prompt'])}]")
reprise.performance_dashboard(run_every=2)
st.text("the end")
