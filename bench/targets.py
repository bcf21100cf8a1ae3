"""What the scripts that measure one thing print: what they found, and each ratio beside what is asked of it."""


def line(name: str, value: float, targets: dict) -> str:
    """A ratio, and its target if it has one; `targets` gives for a name 'least' or 'most' and a value."""
    text = f'{name:36} {value:8.3g}'
    if name not in targets:
        return text
    sense, target = targets[name]
    reached = value >= target if sense == 'least' else value <= target
    return f'{text}   at {sense} {target}{"" if reached else "   MISSED"}'


def show(found: dict, ratios: dict, targets: dict) -> None:
    """Print all that was found, in the unit that stands in its name or else in seconds, and the ratios."""
    for what, value in found.items():
        print(f'{what:36} {value:12.6g}' + ('' if 'MB' in what else ' s'))
    print()
    for name, value in ratios.items():
        print(line(name, value, targets))
