"""From facts in the sources to fields and tasks in either CRM, and back, day after day."""

import pytest
from crm_company import CRM_NAMES
from crm_story import story_of


@pytest.fixture(params=CRM_NAMES)
def story(request, tmp_path_factory):
    return story_of(tmp_path_factory, request.param)


def test_x(story):
    for name, m in story.mornings.items():
        print(name, m.ran, m.requests, m.plan.status, m.plan.reasons, m.plan.totals)
        print("   written", m.written)
        print("   changed", m.changed())
        print("   new", m.new_episodes(), m.drift)
    print(story.cast, story.hands, story.deal, story.successor)
    assert 0
