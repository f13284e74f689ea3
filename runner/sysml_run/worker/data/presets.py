"""The templates that dataset types bring: ordinary mappings, to print, to copy into a recipe and to change there."""

from __future__ import annotations

from sysml_run.recipe import DatasetMap

ANALYST = "You are a local security analyst."
ASSESSMENT = "{{ {'severity': severity, 'risk_score': risk_score | whole} | tojson }}"

FINDING = DatasetMap(
    system=ANALYST,
    prompt="Assess this finding. Answer with JSON: severity and risk_score.\n{{ finding | tojson }}",
    completion=ASSESSMENT,
)
CORRELATION = DatasetMap(
    system=ANALYST,
    prompt=(
        "Assess this correlation of findings. Answer with JSON: severity and risk_score.\n"
        "{{ correlation | tojson }}\nFindings, {{ observations | length }} of {{ correlation_refs | length }}:\n"
        "{{ observations | tojson }}"
    ),
    completion=ASSESSMENT,
)
REPORT = DatasetMap(
    system=ANALYST,
    prompt=(
        "Assess this finding of a scan. Answer with JSON: severity and risk_score.\n"
        "Host: {{ host | tojson }}\nFinding: {{ finding | tojson }}"
    ),
    completion=ASSESSMENT,
)
DOCUMENT = DatasetMap(
    system=None,
    prompt=None,
    completion=(
        "{{ ['Title: ' ~ title if title | default('', true) else '',\n"
        "    'Description: ' ~ description if description | default('', true) else '',\n"
        "    'Content: ' ~ content if content | default('', true) else '',\n"
        "    'Findings: ' ~ findings | tojson if findings | default('', true) else ''] | select | join('\\n') }}"
    ),
)
ALPACA = DatasetMap(
    system="{{ system | default('', true) }}",
    prompt="{{ instruction }}{{ '\\n' ~ input if input | default('', true) else '' }}",
    completion="{{ output }}",
)
PROMPT_COMPLETION = DatasetMap(system=None, prompt="{{ prompt }}", completion="{{ completion }}")
TEXT = DatasetMap(system=None, prompt=None, completion="{{ text }}")
OWN = DatasetMap(system=None, prompt=None, completion=None)
