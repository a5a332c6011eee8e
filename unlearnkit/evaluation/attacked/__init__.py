"""An edit under attack: carried out beside a control, recorded, and graded."""
